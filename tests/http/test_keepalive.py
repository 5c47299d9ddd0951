"""What a stream says while it has nothing to say, and how it ends when it has already begun."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, chat, read_events

from api import event_stream
from api.keepalive import Keepalive
from paddler.errors import EngineFailed
from paddler.jobs import fleet_view
from paddler.jobs.status import Place
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(stream=True),
    "/v1/completions": {"model": "default", "prompt": "x", "stream": True},
}
SEVERAL = {path: body | {"n": 2} for path, body in CALLS.items()}
ALL = [*CALLS.items(), *SEVERAL.items()]
NAMES = ["chat", "completion", "chats", "completions"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HOLD_BACK_S", 0.1)
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


async def opened(
    stack: AsyncExitStack, balancer: HttpBalancer, path: str, body: dict[str, Any], mode: str | None
) -> httpx.Response:
    http = await stack.enter_async_context(balancer.http())
    headers = {} if mode is None else {"X-SSE-Keepalive": mode}
    return await stack.enter_async_context(http.stream("POST", path, json=body, headers=headers))


async def finish(agent: HandAgent, body: dict[str, Any]) -> None:
    for _ in range(body.get("n", 1)):
        request = await agent.take()
        await request.say("hi")
        await request.finish()


@pytest.mark.parametrize(("path", "body"), ALL, ids=NAMES)
async def test_comments_tell_the_place(
    balancer: HttpBalancer, new_agent: NewAgent, path: str, body: dict[str, Any]
) -> None:
    async with AsyncExitStack() as stack:
        response = await opened(stack, balancer, path, body, None)
        assert response.headers["x-queue-position"] == "0"
        pieces = response.aiter_bytes()
        assert [await anext(pieces) for _ in range(2)] == [b": queued position=0\n"] * 2
        await finish(await new_agent(), body)
        text = b"".join([piece async for piece in pieces]).decode()
    assert ": x-paddler-agent: hand\n" in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(("path", "body"), ALL, ids=NAMES)
async def test_empty_deltas_are_chunks_that_change_nothing(
    balancer: HttpBalancer, new_agent: NewAgent, path: str, body: dict[str, Any]
) -> None:
    async with AsyncExitStack() as stack:
        response = await opened(stack, balancer, path, body, "deltas")
        pieces = response.aiter_bytes()
        for _ in range(2):
            chunk = json.loads((await anext(pieces)).decode().removeprefix("data: "))
            (choice,) = chunk["choices"]
            assert (choice["index"], choice["finish_reason"]) == (0, None)
            assert choice.get("text", "") == choice.get("delta", {}).get("content", "") == ""
        await finish(await new_agent(), body)
        text = b"".join([piece async for piece in pieces]).decode()
    assert not [line for line in text.split("\n") if line.startswith(":")]
    assert text.count('"hi"') == body.get("n", 1)
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(("path", "body"), ALL, ids=NAMES)
async def test_none_is_headers_alone(
    balancer: HttpBalancer, new_agent: NewAgent, path: str, body: dict[str, Any]
) -> None:
    async with AsyncExitStack() as stack:
        response = await opened(stack, balancer, path, body, "none")
        assert response.headers["x-queue-position"] == "0"
        await finish(await new_agent(), body)
        events = await read_events(response)
    assert all(event.startswith("data: ") for event in events)


@pytest.mark.parametrize("mode", list(Keepalive))
@pytest.mark.parametrize(("path", "body"), ALL, ids=NAMES)
async def test_an_error_behind_the_headers_is_an_event_before_the_end(
    balancer: HttpBalancer, new_agent: NewAgent, path: str, body: dict[str, Any], mode: Keepalive
) -> None:
    async with AsyncExitStack() as stack:
        response = await opened(stack, balancer, path, body, mode)
        assert response.status_code == 200
        await (await (await new_agent()).take()).fail(EngineFailed("it broke"))
        events = await read_events(response)
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert events[-1] == "data: [DONE]"


@pytest.mark.parametrize(("path", "body"), ALL, ids=NAMES)
async def test_one_within_the_second_has_its_status(
    balancer: HttpBalancer, agent: HandAgent, path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HOLD_BACK_S", 5.0)
    async with balancer.http() as http, asyncio.TaskGroup() as group:
        asking = group.create_task(http.post(path, json=body))
        await (await agent.take()).fail(EngineFailed("it broke"))
        assert (await asking).status_code == 500


async def test_an_unknown_way_is_refused(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        for way in ("often", "None", ""):
            refused = await http.post("/v1/chat/completions", json=chat(), headers={"X-SSE-Keepalive": way})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-SSE-Keepalive")


async def test_the_estimate_is_told_where_there_is_one(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer = await new_balancer()
    agent = await new_agent()
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"rate": 100.0})
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(balancer.http())
        running = asyncio.create_task(first.post("/v1/chat/completions", json=chat()))
        request = await agent.take()
        ahead = asyncio.create_task(first.post("/v1/chat/completions", json=chat()))
        await wait_until(balancer.num_waiting)
        response = await opened(stack, balancer, "/v1/chat/completions", chat(stream=True), None)
        pieces = response.aiter_bytes()
        line = await anext(pieces)
        assert line.startswith(b": queued position=1 eta_ms=")
        assert 500 < int(line.partition(b"eta_ms=")[2]) < 20_000
        await request.finish()
        for _ in range(2):
            await (await agent.take()).finish()
        await asyncio.gather(running, ahead)


def test_how_it_is_written() -> None:
    written = [event_stream._queued(place) for place in (None, Place(3, None), Place(3, 1200))]
    assert written == [b": queued\n", b": queued position=3\n", b": queued position=3 eta_ms=1200\n"]


async def test_a_balancers_own_way_is_for_requests_that_do_not_say(
    new_balancer: NewBalancer, new_agent: NewAgent
) -> None:
    balancer = await new_balancer(keepalive=Keepalive.NONE)
    async with AsyncExitStack() as stack:
        quiet = await opened(stack, balancer, "/v1/chat/completions", chat(stream=True), None)
        told = await opened(stack, balancer, "/v1/chat/completions", chat(stream=True), "comments")
        pieces = told.aiter_bytes()
        assert (await anext(pieces)).startswith(b": queued position=1")
        await finish(await new_agent(slots=2), {"n": 2})
        assert all(event.startswith("data: ") for event in await read_events(quiet))


@pytest.mark.parametrize(
    ("path", "body", "beat"),
    [
        ("/v1/messages", chat(stream=True, max_tokens=9), b'event: ping\ndata: {"type":"ping"}\n\n'),
        ("/v1/responses", {"model": "default", "input": "x", "stream": True}, b""),
    ],
    ids=["message", "response"],
)
async def test_deltas_of_other_protocols_are_their_events_or_nothing(
    balancer: HttpBalancer, new_agent: NewAgent, path: str, body: dict[str, Any], beat: bytes
) -> None:
    async with AsyncExitStack() as stack:
        response = await opened(stack, balancer, path, body, "deltas")
        pieces = response.aiter_bytes()
        agent = await new_agent()
        request = await agent.take()
        await request.say("hi")
        begun = b""
        while b"hi" not in begun:
            begun += await anext(pieces)
        if beat:
            assert await anext(pieces) == beat
        else:
            await asyncio.sleep(0.3)
        await request.finish()
        rest = b"".join([piece async for piece in pieces])
    lines = (begun + rest).decode().splitlines()
    assert not [line for line in lines if line.startswith(":")]
    assert lines[0].startswith("event: ")
