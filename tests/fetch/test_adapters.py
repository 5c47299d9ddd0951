"""LoRA adapters by reference: in a state that is followed, with a projection beside them, and by flag."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from file_server import FileServer, Trick
from http_harness import HttpBalancer, chat, http_balancer
from lora import write_adapter
from story_harness import Command
from tiny_vision import picture, write_projector

from paddler.cli import cli
from paddler.clock import SystemClock
from paddler.desired.adapters import of_flags, of_state, source_of
from paddler.desired.document import document_of
from paddler.desired.schema import (
    BalancerDesiredState,
    DesiredAdapter,
    GivenModel,
    HuggingFaceReference,
    InferenceParameters,
    UrlReference,
)
from paddler.desired.store import DesiredStates
from paddler.engine_flags import ADAPTERS, flag_value
from paddler.engine_settings import EngineSettings, LoraAdapter
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import Overview
from paddler.store.client import Store
from paddler.store.desired_keys import DesiredKeys
from paddler.store.turn_keys import turns_key
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from workers.agent.fetch.adapters import fetched, local_files_of
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError
from workers.agent.phases import Phase

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

StartAgent = Callable[..., Command]
TOKENS = 12


@pytest.fixture
async def start_agent(store: Store, tmp_path: Path) -> AsyncIterator[StartAgent]:
    started: list[Command] = []

    def start(*flags: str) -> Command:
        where = ("--redis-url", store.url, "--redis-prefix", store.prefix, "--cache-dir", str(tmp_path / "cache"))
        small = ("--slots", "1", "--threads", "1", "--name", "a", "--grace", "0", "--log-level", "info")
        started.append(Command(tmp_path / f"agent-{len(started)}.log", "agent", *small, *where, *flags))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
    for one in started:
        await asyncio.to_thread(one.process.wait, 30)
    keys = store.pool("default").keys
    desired = DesiredKeys(keys.base)
    await store.redis.delete(desired.desired(), desired.history(), turns_key(keys))


async def the_lane(store: Store, **fields: object) -> Lane:
    """The one agent, as soon as it is so."""

    async def find() -> Lane | None:
        lanes = (await Overview(store).pool("default")).lanes
        found = next((one for one in lanes if all(getattr(one, name) == value for name, value in fields.items())), None)
        return found

    return await wait_until(find, timeout_s=120, poll_s=0.05, what=f"an agent is {fields}")


async def said(balancer: HttpBalancer, content: Any) -> str:
    """What the model says to it, with nothing left to chance."""
    body = chat(temperature=0, max_tokens=TOKENS) | {"messages": [{"role": "user", "content": content}]}
    async with balancer.http() as http:
        answer = await http.post("/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


async def test_a_followed_state_with_an_adapter_and_a_projection(
    store: Store, server: FileServer, start_agent: StartAgent, tmp_path: Path
) -> None:
    """Both come from a server, with the starter model: it reads an image, and says something else than without the
    adapter; the next state takes it away again."""
    adapter = server.put("/adapter.gguf", write_adapter(tmp_path / "a.gguf", size=0.5).read_bytes())
    projection = server.put("/mmproj.gguf", write_projector(tmp_path / "p.gguf").read_bytes())
    states = DesiredStates(store, SystemClock())
    plain = BalancerDesiredState(
        model=GivenModel(LocalToAgent=str(find_starter())),
        multimodal_projection=GivenModel(Url=UrlReference(url=projection)),
        inference_parameters=InferenceParameters(context_size=1024),
    )
    adapters = (DesiredAdapter(Url=UrlReference(url=adapter), scale=1.0),)
    changed = msgspec.structs.replace(plain.inference_parameters, lora_adapters=adapters)
    first = await states.write(
        "default", msgspec.structs.replace(plain, inference_parameters=changed), expected=None, author="test"
    )
    agent = start_agent()
    await the_lane(store, state="ready", state_application_status="Applied", desired_version=first)
    loaded = await agent.logged("loaded a LoRA adapter")
    assert loaded["path"].startswith(str(tmp_path / "cache"))
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    image = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    async with http_balancer(store.url, store.prefix, buffered_request_timeout_ms=120_000) as balancer:
        with_adapter = await said(balancer, "Tell me about the sea.")
        await said(balancer, image)
        second = await states.write("default", plain, expected=None, author="test")
        await the_lane(store, state="ready", state_application_status="Applied", desired_version=second)
        assert await said(balancer, "Tell me about the sea.") != with_adapter
        await said(balancer, image)
    assert len(server.gets("/adapter.gguf")) == 1
    assert len(server.gets("/mmproj.gguf")) == 1, "it is in the cache"


async def test_an_adapter_that_is_not_there(store: Store, server: FileServer, start_agent: StartAgent) -> None:
    """The issue names the adapter and not the model; nothing is loaded without it."""
    parameters = InferenceParameters(
        context_size=512, lora_adapters=(DesiredAdapter(Url=UrlReference(url=server.url("/gone.gguf"))),)
    )
    state = BalancerDesiredState(model=GivenModel(LocalToAgent=str(find_starter())), inference_parameters=parameters)
    await DesiredStates(store, SystemClock()).write("default", state, expected=None, author="test")
    start_agent()
    lane = await the_lane(store, state="failed", state_application_status="AttemptedAndNotAppliable")
    assert [(one.kind, one.model_path) for one in lane.issues] == [("ModelDoesNotExistAtUrl", server.url("/gone.gguf"))]


async def test_by_flag_beside_a_model_by_flag(
    store: Store, server: FileServer, start_agent: StartAgent, tmp_path: Path
) -> None:
    adapter = server.put("/adapter.gguf", write_adapter(tmp_path / "a.gguf").read_bytes())
    agent = start_agent("--model", str(find_starter()), "--context-size", "512", "--lora-adapters", f"{adapter}:0.5")
    loaded = await agent.logged("loaded a LoRA adapter")
    assert loaded["path"].startswith(str(tmp_path / "cache"))
    assert loaded["scale"] == 0.5
    await the_lane(store, state="ready")


async def test_a_flag_whose_file_is_not_there(store: Store, server: FileServer, start_agent: StartAgent) -> None:
    start_agent("--model", str(find_starter()), "--lora-adapters", server.url("/gone.gguf"))
    lane = await the_lane(store, state="failed")
    assert [one.kind for one in lane.issues] == ["ModelDoesNotExistAtUrl"]


def test_what_is_fetched_and_what_is_here(server: FileServer, cache: ModelCache, tmp_path: Path) -> None:
    here = write_adapter(tmp_path / "here.gguf")
    url = server.put("/there.gguf", here.read_bytes())
    adapters = (LoraAdapter(str(here)), LoraAdapter(url, 0.25))
    settings = EngineSettings(model_path="m", slots=1, lora_adapters=adapters, multimodal_projection="p")
    told: list[tuple[Phase, float]] = []
    found = fetched(settings, cache, lambda phase, fraction: told.append((phase, fraction)))
    first, second = found.lora_adapters
    assert first == LoraAdapter(str(here))
    assert Path(second.path).read_bytes() == here.read_bytes()
    assert second.scale == 0.25
    assert {phase for phase, _ in told} == {Phase.DOWNLOADING}
    assert local_files_of(settings) == (here, Path("p")), "what a change of is waited for"
    fetched(settings, cache, lambda phase, fraction: None)
    assert len(server.gets("/there.gguf")) == 1
    server.trick("/other.gguf", Trick(status=404))
    with pytest.raises(FetchError):
        fetched(
            msgspec.structs.replace(settings, lora_adapters=(LoraAdapter(server.url("/other.gguf")),)),
            cache,
            lambda phase, fraction: None,
        )


PAGE = "https://huggingface.co/owner/repo/resolve/main/adapter.gguf"
HUB = GivenModel(HuggingFace=HuggingFaceReference(repo_id="owner/repo", filename="adapter.gguf", revision="main"))


def test_flags_and_states_name_the_same() -> None:
    given = ADAPTERS.convert(f"/a.gguf:0.5,{PAGE}:2,agent:///b.gguf,http://127.0.0.1:8080/c.gguf", None, None)
    assert [one.scale for one in given] == [0.5, 2.0, 1.0, 1.0]
    sources = [one.source for one in of_flags(given)]
    assert sources == [
        GivenModel(LocalToAgent="/a.gguf"),
        HUB,
        GivenModel(LocalToAgent="/b.gguf"),
        GivenModel(Url=UrlReference(url="http://127.0.0.1:8080/c.gguf")),
    ]
    assert ADAPTERS.convert(flag_value(given), None, None) == given, "as `paddler up` passes it on"
    adapters = (DesiredAdapter(path="/a.gguf", scale=0.5), DesiredAdapter(HuggingFace=HUB.HuggingFace, scale=2.0))
    assert of_state(adapters) == of_flags(given)[:2]
    with pytest.raises(ValueError, match="names no model"):
        source_of("s3://bucket/a.gguf")


async def test_by_command(store: Store) -> None:
    where = {"PADDLER_REDIS_URL": store.url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": "80"}

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["model", *arguments], env=where)
        assert result.exit_code == 0, result.output
        return result.output

    states = DesiredStates(store, SystemClock())
    await run("use", "agent:///m.gguf", "--lora", f"{PAGE}:0.5", "--lora", "agent:///b.gguf")
    found = (await states.read("default")).state
    assert list(document_of(found)["inference_parameters"]["lora_adapters"]) == [
        {"HuggingFace": {"repo_id": "owner/repo", "filename": "adapter.gguf", "revision": "main"}, "scale": 0.5},
        {"LocalToAgent": "/b.gguf", "scale": 1.0},
    ]
    shown = " ".join((await run("show")).split())
    assert "/b.gguf" in shown
    assert "0.5 of it" in shown
    await run("use", "agent:///other.gguf")
    assert (await states.read("default")).state.inference_parameters.lora_adapters == ()
    desired = DesiredKeys(store.pool("default").keys.base)
    await store.redis.delete(desired.desired(), desired.history())
