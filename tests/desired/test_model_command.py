"""`paddler model` as an operator meets it: the real command against a real server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from paddler.cli import cli
from paddler.desired.document import document_of
from paddler.desired.schema import BalancerDesiredState, ChatTemplate, GivenModel, HuggingFaceReference, UrlReference
from paddler.desired.store import DesiredStates
from paddler.desired.uris import parse_model_uri, uri_of
from paddler.store.client import Store

pytestmark = pytest.mark.anyio

Model = Callable[..., Awaitable[tuple[int, str]]]
PAGE = "https://huggingface.co/Qwen/Qwen3-0.6B-GGUF/blob/main/Qwen3-0.6B-Q8_0.gguf"
RESOLVED = PAGE.replace("/blob/", "/resolve/")
FILE = GivenModel(
    HuggingFace=HuggingFaceReference(repo_id="Qwen/Qwen3-0.6B-GGUF", filename="Qwen3-0.6B-Q8_0.gguf", revision="main")
)
DIGEST = "ab" * 32


@pytest.fixture
def states(store: Store) -> DesiredStates:
    return DesiredStates(store)


@pytest.fixture
def model(store: Store) -> Model:
    """Runs the command; returns its exit code and output. No line of a table is longer than the terminal is
    wide."""

    async def run(*arguments: str, stdin: str | None = None, url: str = store.url) -> tuple[int, str]:
        environment = {"PADDLER_REDIS_URL": url, "PADDLER_REDIS_PREFIX": store.prefix, "COLUMNS": "80"}
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, ["model", *arguments], env=environment, input=stdin, prog_name="paddler"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if arguments[0] in ("show", "history") and "--json" not in arguments:
            assert all(len(line) <= 80 for line in result.output.splitlines()), result.output
        return result.exit_code, result.output

    return run


def words(text: str) -> str:
    """Without the frames of messages and the breaks of lines."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PAGE, FILE),
        (RESOLVED, FILE),
        (f"{RESOLVED}?download=true", FILE),
        (PAGE.replace("huggingface.co", "hf.co"), FILE),
        (
            "https://huggingface.co/a/b/resolve/refs%2Fpr%2F3/Q4%20K/m-00001-of-00002.gguf",
            GivenModel(
                HuggingFace=HuggingFaceReference(
                    repo_id="a/b", filename="Q4 K/m-00001-of-00002.gguf", revision="refs/pr/3"
                )
            ),
        ),
        ("agent:///models/a%20b#c.gguf", GivenModel(LocalToAgent="/models/a%20b#c.gguf")),
        ("http://127.0.0.1:8000/m.gguf", GivenModel(Url=UrlReference(url="http://127.0.0.1:8000/m.gguf"))),
    ],
)
def test_a_model_by_uri(text: str, expected: GivenModel) -> None:
    assert parse_model_uri(text) == expected
    assert parse_model_uri(uri_of(expected)) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/models/m.gguf", "a path on the agents is agent:///models/m.gguf"),
        ("models/m.gguf", "it is https://huggingface.co/<owner>/<repo>/resolve/"),
        ("agent://models/m.gguf", "no absolute path on the agent, such as agent:///models/model.gguf"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B-GGUF", "is no file on Hugging Face"),
        ("https://", "expected http:// or https://, a host"),
        ("s3://bucket/m.gguf", "names no model"),
        ("agent:///" + "m" * 5000, "length <= 4096"),
    ],
)
def test_what_names_no_model(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_model_uri(text)


def test_a_digest_goes_with_a_url() -> None:
    given = parse_model_uri("http://host/m.gguf", DIGEST)
    assert given == GivenModel(Url=UrlReference(url="http://host/m.gguf", sha256=DIGEST))
    for text, digest in ((PAGE, DIGEST), ("http://host/m.gguf", "abc")):
        with pytest.raises(ValueError, match=r"sha256|regex"):
            parse_model_uri(text, digest)


async def test_nobody_has_set_one(model: Model) -> None:
    code, output = await model("show")
    assert code == 0
    assert "by nobody yet" in words(output)
    code, output = await model("show", "--json")
    assert json.loads(output) == document_of(BalancerDesiredState())
    assert await model("history") == (0, "Nobody has set a desired state of pool default.\n")


async def test_use(model: Model, states: DesiredStates) -> None:
    code, output = await model("use", PAGE, "--mmproj", "agent:///mmproj.gguf")
    assert (code, words(output)) == (0, f"Version 1 of pool default: {RESOLVED}")
    found = await states.read("default")
    assert (found.state.model, found.state.multimodal_projection) == (FILE, GivenModel(LocalToAgent="/mmproj.gguf"))
    assert found.author.startswith("paddler model, ")
    await model("use", "http://host/m.gguf", "--sha256", DIGEST)
    state = (await states.read("default")).state
    assert state.model == GivenModel(Url=UrlReference(url="http://host/m.gguf", sha256=DIGEST))
    assert state.multimodal_projection == "None", "another model has another one"
    await model("use", "none")
    assert (await states.read("default")).state.model == "None"
    code, output = await model("use", "/m.gguf")
    assert code == 2
    assert "a path on the agents is agent:///m.gguf" in words(output)


async def test_patch_and_show(model: Model, states: DesiredStates) -> None:
    patch = {"inference_parameters": {"temperature": 0.2, "dry_sequence_breakers": ["\n"]}, "aliases": ["gpt-4o"]}
    code, output = await model("patch", json.dumps(patch))
    assert (code, output) == (0, "Version 1 of pool default: None\n")
    code, output = await model("show")
    assert code == 0
    for row in ("version 1", "aliases gpt-4o", "temperature 0.2 0.8", "template the model's", r"'\n' '\n', ':'"):
        assert row in words(output), row
    code, output = await model("patch", '{"modl": 1}')
    assert code == 1
    assert "did you mean `model`?" in words(output)
    assert await states.version("default") == 1


async def test_set_takes_what_show_gives(model: Model, states: DesiredStates, tmp_path: Path) -> None:
    await model("use", PAGE)
    _, document = await model("show", "--json")
    file = tmp_path / "state.json"
    file.write_text(document.replace("0.8", "0.5"))
    code, output = await model("set", str(file), "--json")
    assert code == 0
    assert json.loads(output)["version"] == 2
    assert (await states.read("default")).state.inference_parameters.top_p == 0.5
    assert (await model("set", "-", stdin=document))[0] == 0
    assert json.loads((await model("show", "--json"))[1]) == json.loads(document)
    assert (await model("set", str(tmp_path / "nothing")))[0] == 2
    code, output = await model("set", "-", stdin='{"model": "None"}')
    assert code == 1
    assert "is required" in words(output)
    file.write_text('{"aliases": ["a"]}')
    assert (await model("patch", f"@{file}"))[0] == 0
    assert (await states.read("default")).state.aliases == ("a",)


async def test_history_and_rollback(model: Model, states: DesiredStates) -> None:
    for uri in (PAGE, "agent:///m.gguf"):
        await model("use", uri)
    code, output = await model("history")
    assert code == 0
    assert words(output).startswith("version set by model 2 ")
    code, output = await model("history", "--json")
    told = json.loads(output)
    assert [one["version"] for one in told] == [2, 1]
    assert told[1]["balancer_desired_state"]["model"] == {"HuggingFace": {
        "repo_id": "Qwen/Qwen3-0.6B-GGUF", "filename": "Qwen3-0.6B-Q8_0.gguf", "revision": "main"}}  # fmt: skip
    _, output = await model("show", "--version", "1")
    assert RESOLVED in "".join(output.split()), "whole, if in two lines"
    code, output = await model("rollback", "1")
    assert (code, words(output)) == (0, f"Version 3 of pool default: {RESOLVED}")
    assert (await states.read("default")).state.model == FILE
    code, output = await model("rollback", "9")
    assert code == 1
    assert "has no version 9" in words(output)


async def test_only_if_nobody_has_changed_it(model: Model, states: DesiredStates) -> None:
    assert (await model("use", PAGE, "--if-version", "0"))[0] == 0
    for arguments in (("use", "agent:///m.gguf"), ("patch", '{"aliases": ["a"]}'), ("rollback", "1")):
        code, output = await model(*arguments, "--if-version", "7")
        assert code == 1
        assert "has version 1, not 7: `paddler model show` it" in words(output)
    assert (await model("patch", '{"aliases": ["a"]}', "--if-version", "1"))[0] == 0
    assert await states.version("default") == 2


async def test_another_pool(model: Model, states: DesiredStates) -> None:
    await model("use", PAGE, "--pool", "chat")
    assert (await states.read("chat")).state.model == FILE
    assert await states.version("default") == 0


async def test_an_override_that_is_not_used(model: Model, states: DesiredStates) -> None:
    state = BalancerDesiredState(chat_template_override=ChatTemplate("x" * 1500))
    await states.write("default", state, expected=None, author="")
    assert "template the model's; an override of 1,500 characters is not used" in words((await model("show"))[1])
    await model("patch", '{"use_chat_template_override": true}')
    assert "template overridden, 1,500 characters" in words((await model("show"))[1])


async def test_redis_is_away(model: Model) -> None:
    code, output = await model("show", url="redis://127.0.0.1:1")
    assert code == 1
    assert "name another one with --redis-url" in words(output)
