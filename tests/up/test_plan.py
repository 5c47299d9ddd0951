"""From settings to command lines that the real commands accept."""

from __future__ import annotations

import shlex
from importlib import metadata
from pathlib import Path

import msgspec
import pytest
import rich_click as click

from paddler import cli
from paddler.desired.database import StateDatabase
from paddler.engine_settings import LoraAdapter
from paddler.settings import DEFAULT_REDIS_PREFIX, Address
from paddler.up.agents import AgentCount
from paddler.up.plan import AGENTS_OWN, Settings, child_environment, flags, paddler_specs, without_password
from paddler.up.ready import agent_command, curl_command, ready_message
from workers.agent.fetch.flags import fetch_options

SETTINGS = Settings(
    redis_url=None,
    redis_prefix=DEFAULT_REDIS_PREFIX,
    state_dir=Path("/state"),
    model=None,
    model_name="tiny",
    engine="scripted",
    agents=AgentCount(2),
    slots=3,
    context_size=2048,
    threads=2,
    n_gpu_layers=9,
    pooling="last",
    cache_type_k="q8_0",
    cache_type_v="q8_0",
    flash_attention="on",
    split_mode="row",
    main_gpu=1,
    tensor_split=(3.0, 1.0),
    lora_adapters=(LoraAdapter("a.gguf", 0.5), LoraAdapter("b.gguf")),
    multimodal_projection="/models/mmproj.gguf",
    image_resize_to_fit=512,
    kv_disk=Path("/kv"),
    kv_disk_size=1 << 30,
    kv_url="redis://:secret@kv:6379/0",
    kv_addr=Address("127.0.0.1", 0),
    kv_key_file=Path("/key"),
    kv_grace=700,
    inference_addr=Address("127.0.0.1", 1),
    management_addr=Address("127.0.0.1", 2),
    compat_openai_addr=Address("::1", 3),
    web_admin_panel_addr=Address("127.0.0.1", 4),
    buffered_request_timeout=4000,
    max_buffered_requests=5,
    inference_item_timeout=6000,
    share_prefix_cache=True,
    state_database=StateDatabase("redis"),
    statsd_addr=Address("localhost", 8125),
    statsd_prefix="mine",
    statsd_reporting_interval=500,
    otlp_endpoint="http://127.0.0.1:4318",
    management_cors_allowed_host=("http://127.0.0.1:3000",),
    inference_cors_allowed_host=("https://example.org", "http://127.0.0.1:3000"),
    allowed_host=("llm.example.org", ".dev.example.org"),
    log_level="debug",
    log_format="json",
)


def parsed(command: tuple[str, ...] | list[str]) -> dict[str, object]:
    """What the real command makes of its part of a command line."""
    name, *arguments = command[command.index("paddler") + 1 :]
    (point,) = metadata.entry_points(group=cli.ENTRY_POINTS, name=name)
    loaded: click.Command = point.load()
    return loaded.make_context(name, arguments).params


def test_every_setting_reaches_the_process_it_is_for() -> None:
    given = {spec.name: parsed(spec.command) for spec in paddler_specs(SETTINGS, awaits="valkey")}
    assert list(given) == ["balancer", "agent-1", "agent-2", "worker"]
    shared = {"redis_prefix": "paddler", "log_level": "debug", "log_format": "json"}
    traced = {"otlp_endpoint": "http://127.0.0.1:4318"}
    reporting = {"statsd_addr": SETTINGS.statsd_addr, "statsd_prefix": "mine", "statsd_reporting_interval": 500}
    assert (
        given["balancer"].items()
        >= {
            "inference_addr": SETTINGS.inference_addr,
            "allowed_host": SETTINGS.allowed_host,
            "management_addr": SETTINGS.management_addr,
            "compat_openai_addr": SETTINGS.compat_openai_addr,
            "web_admin_panel_addr": SETTINGS.web_admin_panel_addr,
            "buffered_request_timeout": 4000,
            "max_buffered_requests": 5,
            "inference_item_timeout": 6000,
            "share_prefix_cache": True,
            "state_database": SETTINGS.state_database,
            "management_cors_allowed_host": SETTINGS.management_cors_allowed_host,
            "inference_cors_allowed_host": SETTINGS.inference_cors_allowed_host,
            **shared,
            **traced,
            **reporting,
        }.items()
    )
    wanted = {
        "slots": 3,
        "engine": "scripted",
        "model_name": "tiny",
        "context_size": 2048,
        "threads": 2,
        "n_gpu_layers": 9,
        "pooling": "last",
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "flash_attention": "on",
        "split_mode": "row",
        "main_gpu": 1,
        "tensor_split": (3.0, 1.0),
        "lora_adapters": SETTINGS.lora_adapters,
        "on_model_error": "exit",
        "multimodal_projection": "/models/mmproj.gguf",
        "image_resize_to_fit": 512,
        **shared,
        **traced,
    }
    assert given["agent-1"].items() >= {"name": "agent-1", **wanted}.items()
    assert given["agent-2"].items() >= {"name": "agent-2", **wanted}.items()
    assert given["worker"].items() >= (shared | reporting).items()


def test_what_was_not_asked_for_is_left_to_the_command() -> None:
    settings = msgspec.structs.replace(SETTINGS, context_size=None, threads=None, model_name=None)
    agent = paddler_specs(settings, awaits=None)[1]
    assert not {"--context-size", "--threads", "--model-name", "--model"} & set(agent.command)
    quiet = msgspec.structs.replace(SETTINGS, statsd_addr=None, otlp_endpoint=None)
    words = {word for spec in paddler_specs(quiet, awaits=None) for word in spec.command}
    assert not [word for word in words if word.startswith(("--statsd", "--otlp"))]


def test_the_balancer_stops_first_and_all_wait_for_the_server() -> None:
    specs = {spec.name: spec for spec in paddler_specs(SETTINGS, awaits="valkey")}
    assert {spec.awaits for spec in specs.values()} == {"valkey"}
    assert specs["balancer"].stop_stage < specs["agent-1"].stop_stage == specs["worker"].stop_stage


def test_no_agent() -> None:
    names = [spec.name for spec in paddler_specs(msgspec.structs.replace(SETTINGS, agents=AgentCount(0)), awaits=None)]
    assert names == ["balancer", "worker"]


def test_a_range_of_agents_is_an_autoscalers() -> None:
    """What makes an agent one of this fleet reaches it by way of the autoscaler, all but name and slots."""
    ranged = msgspec.structs.replace(SETTINGS, agents=AgentCount(0, 2), cooldown=7000)
    specs = {spec.name: spec for spec in paddler_specs(ranged, awaits="valkey")}
    assert list(specs) == ["balancer", "autoscale", "worker"]
    given = parsed(specs["autoscale"].command)
    wanted = {"least": 0, "most": 2, "slots": 3, "cooldown": 7000, "on_death": "end", "agent_name": "agent"}
    assert given.items() >= {**wanted, "redis_prefix": "paddler", "log_level": "debug", "log_format": "json"}.items()
    own = given["agent_flags"]
    assert isinstance(own, tuple)
    agent = parsed(["paddler", "agent", "--name", "agent-1", "--slots", "3", *own])
    fixed = parsed(paddler_specs(SETTINGS, awaits=None)[1].command)
    assert {name: value for name, value in fixed.items() if agent[name] != value} == {
        "log_level": "debug",
        "log_format": "json",
    }
    message = ready_message(ranged, "unix:///s?db=0", "paddler", 1.0)
    assert "0 to 2 with 3 slots each" in message
    assert (
        "the first request starts one, and waits up to 4 s for it. Agents that nobody has needed for 7 s end."
        in message
    )
    one = msgspec.structs.replace(ranged, agents=AgentCount(1, 2))
    assert "A request starts an agent when there are too few slots." in ready_message(one, "unix:///s", "paddler", 1.0)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", AgentCount(0)), ("64", AgentCount(64)), ("0..2", AgentCount(0, 2)), ("2..2", AgentCount(2, 2))],
)
def test_how_many_agents(text: str, count: AgentCount) -> None:
    assert AgentCount.parse(text) == count


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            (text, "neither a number of agents")
            for text in ("", "two", "-1", "1...2", "1..", "..2", "1-2", "٣", "1..2..3")
        ),
        ("65", "at most 64"),
        ("0..65", "at most 64"),
        ("2..1", "the second number is the most"),
        ("0..0", "the second number is the most"),
    ],
)
def test_what_is_no_number_of_agents_is_explained(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        AgentCount.parse(text)


def test_our_own_variables_do_not_reach_the_children_twice() -> None:
    environment = child_environment({"PADDLER_SLOTS": "9", "PADDLER_REDIS_URL": "redis://x", "HOME": "/h"}, "unix:///s")
    assert environment == {"HOME": "/h", "PADDLER_REDIS_URL": "unix:///s", "PYTHONUNBUFFERED": "1"}


def test_states_are_kept_by_agents_as_they_are_told() -> None:
    command = paddler_specs(SETTINGS, awaits=None)[1].command
    wanted = {"kv_disk": Path("/kv"), "kv_disk_size": 1 << 30, "kv_key_file": Path("/key"), "kv_grace": 700}
    assert parsed(command).items() >= {**wanted, "kv_addr": Address("127.0.0.1", 0)}.items()
    assert "secret" not in " ".join(command), "anybody may read a command line"
    assert child_environment({}, "unix:///s", SETTINGS.kv_url)["PADDLER_KV_URL"] == SETTINGS.kv_url
    without = msgspec.structs.replace(SETTINGS, kv_disk=None, kv_url=None, kv_addr=None)
    assert not [one for one in paddler_specs(without, awaits=None)[1].command if one.startswith("--kv")]


def test_variables_of_agents_alone_reach_them() -> None:
    """As `paddler up` has no such flags."""
    given = {"PADDLER_CACHE_DIR": "/c", "PADDLER_HF_TOKEN_FILE": "/t", "PADDLER_DOWNLOAD_TOKEN_FILE": "h=/u i=/v"}
    assert given.items() <= child_environment(given, "unix:///s").items()
    known = {flag for option in click.command()(fetch_options(lambda: None)).params for flag in option.opts}
    assert set(AGENTS_OWN) <= known


def test_no_command_line_holds_the_redis_url() -> None:
    settings = msgspec.structs.replace(SETTINGS, redis_url="redis://:secret@127.0.0.1:6379/0")
    assert "secret" not in repr(paddler_specs(settings, awaits=None))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("unix:///run/valkey.sock?db=0", "unix:///run/valkey.sock?db=0"),
        ("rediss://:secret@h:1/2", "rediss://:***@h:1/2"),
        ("redis://me:se%40cret@[::1]:1/2", "redis://me:***@[::1]:1/2"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_flags() -> None:
    assert flags(max_buffered_requests=30, model=None, name="a b") == ["--max-buffered-requests", "30", "--name", "a b"]


def test_the_command_that_adds_an_agent_is_one_that_the_agent_accepts() -> None:
    settings = msgspec.structs.replace(SETTINGS, agents=AgentCount(0), model_name="two words", redis_prefix="p")
    line = agent_command(settings, "unix:///s?db=0", "paddler")
    given = parsed(shlex.split(line))
    assert given["model_name"] == "two words"
    assert given["redis_url"] == "unix:///s?db=0"
    assert given["redis_prefix"] == "p"
    assert given["slots"] == 3
    message = ready_message(settings, "unix:///s?db=0", "paddler", 1.0)
    assert line in message.splitlines()
    assert "waits up to 4 s" in message


def test_the_message_says_where_everything_is_and_hides_a_password() -> None:
    settings = msgspec.structs.replace(SETTINGS, redis_url="redis://:secret@h:1/0")
    message = ready_message(settings, "redis://:secret@h:1/0", "paddler", 2.34)
    for part in ("http://127.0.0.1:1", "http://127.0.0.1:2", "http://[::1]:3/v1", "redis://:***@h:1/0", "2.3 s"):
        assert part in message
    assert "secret" not in message
    assert curl_command(settings) in message.splitlines()


def test_the_command_to_try_is_one_that_the_agents_can_do() -> None:
    given = {(): "chat/completions", ("embed", "generate"): "chat/completions", ("embed",): "embeddings"}
    given |= {("rerank",): "rerank"}
    for abilities, path in given.items():
        message = ready_message(SETTINGS, "unix:///s?db=0", "paddler", 1.0, abilities)
        assert f"curl 'http://[::1]:3/v1/{path}'" in message


def test_agents_without_a_model_follow_and_stay() -> None:
    """With one, or without any need of one, they serve what they are told to, and end when they cannot."""
    for model, engine, follows in ((None, "llama", True), (Path("/a.gguf"), "llama", False), (None, "scripted", False)):
        settings = msgspec.structs.replace(SETTINGS, model=model, engine=engine)
        agent = paddler_specs(settings, awaits=None)[1]
        assert settings.follows == follows
        assert ("--on-model-error" in agent.command) != follows
        assert ("--model" in agent.command) == (model is not None)


def test_where_there_are_keys_the_command_to_try_has_a_place_for_one() -> None:
    message = ready_message(SETTINGS, "unix:///s?db=0", "paddler", 1.0, has_keys=True)
    assert '-H "Authorization: Bearer $PADDLER_API_KEY"' in message
    assert "PADDLER_API_KEY" not in ready_message(SETTINGS, "unix:///s?db=0", "paddler", 1.0)
