"""OpenAI's npm client on a fleet whose agent runs a scripted engine."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from batch_harness import batch_worker
from fleet_harness import Fleet
from http_harness import HttpBalancer, chat
from npm_client import NpmClient, install
from response_calls import create

from paddler.store.client import Store

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("npm")]

SAY = "snow ☃, a pair 😀 and a stop"
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the wood"}}\n</tool_call>'


@pytest.fixture(scope="module")
def npm() -> NpmClient:
    return NpmClient(install())


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        await fleet.agent(slots=4, step_s=0.001)
        yield fleet
        await fleet.close()


@pytest.fixture
def url(balancer: HttpBalancer, fleet: Fleet) -> str:
    return balancer.url()


async def test_a_chat_stream(npm: NpmClient, url: str) -> None:
    told = await npm.run(url, "chatStream", say=f"[[say={SAY}]]")
    assert "".join(told["deltas"]) == told["text"] == SAY
    [choice] = told["completion"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAY, "stop")
    assert told["completion"]["usage"]["completion_tokens"] > len(SAY)


async def test_its_tool_runner(npm: NpmClient, url: str) -> None:
    assert await npm.run(url, "chatTools", say=f"[[say={CALL}]]") == {"text": "a fox", "asked": ["the wood"]}


async def test_completions(npm: NpmClient, url: str) -> None:
    told = await npm.run(url, "completions", prompt=f"[[say={SAY}]]")
    assert told == {"text": SAY, "reason": "stop", "streamed": SAY}


async def test_a_file_and_its_batch(npm: NpmClient, url: str, store: Store) -> None:
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": chat(f"[[say={name} {SAY}]]")}
        for name in ("one", "two")
    ]
    async with batch_worker(store.url, store.prefix):
        told = await npm.run(url, "batches", lines=lines)
    assert (told["same"], told["deleted"], told["listed"]) == (True, True, [told["batch"]["id"]])
    assert told["batch"]["status"] == "completed"
    assert told["batch"]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    said = {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in told["answers"]}
    assert said == {name: f"{name} {SAY}" for name in ("one", "two")}


async def test_a_stream_of_a_response(npm: NpmClient, url: str) -> None:
    told = await npm.run(url, "responsesStream", input=f"[[say={SAY}]]")
    assert (told["text"], told["status"]) == (SAY, "completed")
    for events in (told["events"], told["plain"]):
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == SAY
    helped, plain = ({event["type"]: True for event in events} for events in (told["events"], told["plain"]))
    assert list(helped) == list(plain)


async def test_a_call_in_a_stream_of_a_response(npm: NpmClient, url: str) -> None:
    tool = {
        "type": "function",
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    }
    told = await npm.run(url, "responsesStream", input=f"[[say={CALL}]]", tools=[tool])
    [call] = told["plain"][-1]["response"]["output"]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "look", '{"at": "the wood"}')


async def test_a_response_is_gone_on_with_and_deleted(npm: NpmClient, url: str, balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        response = await create(http, f"[[say={SAY}]]")
    told = await npm.run(url, "responsesResume", id=response["id"], after=6)
    assert told["text"] == SAY
    assert [event["sequence_number"] for event in told["rest"]] == list(range(7, 7 + len(told["rest"])))
    assert [event["type"] for event in told["replayed"]] == [event["type"] for event in told["rest"]]
    assert [item["content"][0]["text"] for item in told["items"]] == [f"[[say={SAY}]]"]
    assert told["gone"] == 404


async def test_embeddings_in_both_forms(npm: NpmClient, url: str) -> None:
    told = await npm.run(url, "embeddings", texts=["a red fox", "the market fell"])
    for whole, plain in zip(told["whole"], told["plain"], strict=True):
        assert len(whole) == len(plain) > 8
        assert all(math.isclose(one, other, abs_tol=1e-6) for one, other in zip(whole, plain, strict=True))


async def test_errors_are_the_clients_own(npm: NpmClient, url: str) -> None:
    told = await npm.run(url, "error", input="hi", temperature=5)
    assert told == {"kind": "BadRequestError", "status": 400, "code": "invalid_field", "param": "temperature"}
