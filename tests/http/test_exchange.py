"""The way of an answer, step by step (`api.exchange`): real sockets, the real queue, an agent moved by hand."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HandRequest, HttpBalancer, NewAgent, NewBalancer, chat, read_events

from api import event_stream
from paddler.errors import ContextExceeded, EngineFailed
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import FinishReason

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


class Call:
    """A request on its way, in a task."""

    def __init__(self, balancer: HttpBalancer, **fields: Any) -> None:
        self._http = balancer.http()
        self._task = asyncio.create_task(self._post(fields))

    async def _post(self, fields: dict[str, Any]) -> httpx.Response:
        async with self._http as http:
            return await http.post(CHAT, json=chat(**fields))

    async def answer(self) -> httpx.Response:
        return await self._task

    async def error(self, status: int) -> dict[str, Any]:
        answer = await self._task
        assert answer.status_code == status, answer.text
        return answer.json()["error"]

    async def events(self) -> list[str]:
        answer = await self._task
        assert answer.status_code == 200, answer.text
        return await read_events(answer)


def texts(events: list[str]) -> str:
    """The text of a stream's content chunks."""
    chunks = [json.loads(event[6:]) for event in events if event.startswith("data: {")]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk.get("choices", []))


def last_error(events: list[str]) -> dict[str, Any]:
    assert events[-1] == "data: [DONE]"
    return json.loads(events[-2][6:])["error"]


async def test_a_whole_answer(balancer: HttpBalancer, agent: HandAgent) -> None:
    call = Call(balancer, max_tokens=9, seed=3, stop=["x"])
    request = await agent.take()
    assert (request.asked.max_tokens, request.asked.sampling.seed, request.asked.stop) == (9, 3, ("x",))
    await request.say("hel")
    await request.say("lo")
    await request.finish(FinishReason.LENGTH)

    answer = await call.answer()
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == request.request_id
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["id"] == f"chatcmpl-{request.request_id}"
    assert abs(body["created"] - time.time()) < 60
    assert body["choices"][0]["message"]["content"] == "hello"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 7


async def test_requests_without_a_seed_get_different_ones(balancer: HttpBalancer, agent: HandAgent) -> None:
    seeds: set[int] = set()
    for _ in range(2):
        call = Call(balancer)
        request = await agent.take()
        seeds.add(request.asked.sampling.seed)
        await request.finish()
        await call.answer()
    assert len(seeds) == 2


async def begin(http: httpx.AsyncClient, agent: HandAgent, text: str) -> tuple[httpx.Response, HandRequest]:
    """A stream whose first text has been sent."""
    sending = asyncio.create_task(http.send(http.build_request("POST", CHAT, json=chat(stream=True)), stream=True))
    request = await agent.take()
    await request.say(text)
    return await sending, request


async def test_a_stream_brings_each_frame_when_it_comes(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        answer, request = await begin(http, agent, "zero ")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-request-id"] == request.request_id
        pieces = answer.aiter_bytes()
        assert b"zero" in await anext(pieces)
        for word in ("one ", "two"):
            await request.say(word)
            assert word.encode() in await anext(pieces)
        await request.finish()
        assert (await anext(pieces)).endswith(b"data: [DONE]\n\n")
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_quick_failures_of_a_stream_keep_their_status(balancer: HttpBalancer, agent: HandAgent) -> None:
    call = Call(balancer, stream=True)
    request = await agent.take()
    await request.fail(ContextExceeded("too long", param="messages"))
    error = await call.error(400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert (await call.answer()).headers["x-request-id"] == request.request_id


async def test_a_full_buffer_is_503_with_retry_after(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(max_buffered_requests=1, buffered_request_timeout_ms=1_500)
    waiting = Call(balancer)
    await wait_until(balancer.num_waiting)
    for stream in (False, True):
        refused = Call(balancer, stream=stream)
        error = await refused.error(503)
        assert (error["type"], error["code"]) == ("server_error", "buffer_full")
        headers = (await refused.answer()).headers
        assert int(headers["retry-after"]) >= 1
        assert headers["x-should-retry"] == "true"
    assert (await waiting.error(504))["code"] == "start_timeout"
    assert await balancer.is_idle()


async def test_waiting_too_long_is_504(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(buffered_request_timeout_ms=200)
    for stream in (False, True):
        call = Call(balancer, stream=stream)
        error = await call.error(504)
        assert error["code"] == "start_timeout"
        assert "--buffered-request-timeout" in error["message"]
        assert (await call.answer()).headers["x-request-id"].startswith("default.")


async def test_a_stream_that_waits_says_so_and_fails_within_the_stream(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(buffered_request_timeout_ms=1_300)
    events = await Call(balancer, stream=True).events()
    assert events[0] == ": queued position=0"
    assert len(events) == 3, "the comment, the error, [DONE]"
    assert last_error(events)["code"] == "start_timeout"


async def test_scale_from_zero(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    stream, whole = Call(balancer, stream=True), Call(balancer)

    async def both_wait() -> bool:
        return await balancer.num_waiting() == 2

    await wait_until(both_wait)
    agent = await new_agent(slots=2)
    for _ in range(2):
        request = await agent.take()
        await request.say("hello")
        await request.finish()
    assert texts(await stream.events()) == "hello"
    assert (await whole.answer()).json()["choices"][0]["message"]["content"] == "hello"


async def test_waiting_is_told_from_a_long_prefill(
    balancer: HttpBalancer, new_agent: NewAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HOLD_BACK_S", 0.1)
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.1)
    async with balancer.http() as http:
        answer = await http.send(http.build_request("POST", CHAT, json=chat(stream=True)), stream=True)
        pieces = answer.aiter_bytes()
        assert [await anext(pieces) for _ in range(2)] == [b": queued position=0\n"] * 2
        request = await (await new_agent()).take()
        seen = b": queued"
        while seen.startswith(b": queued"):
            seen = await anext(pieces)
        assert seen == b": keepalive\n"
        await request.finish()
        assert b"".join([piece async for piece in pieces]).endswith(b"data: [DONE]\n\n")


async def test_a_silent_stream_is_kept_alive(
    balancer: HttpBalancer, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.1)
    async with balancer.http() as http:
        answer, request = await begin(http, agent, "zero ")
        pieces = answer.aiter_bytes()
        assert b"zero" in await anext(pieces)
        assert [await anext(pieces) for _ in range(2)] == [b": keepalive\n"] * 2
        await request.say("hello")
        seen = b""
        while b"hello" not in seen:
            seen = await anext(pieces)
        assert await anext(pieces) == b": keepalive\n"
        await request.finish()
        rest = b"".join([piece async for piece in pieces])
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_errors_after_the_first_token(balancer: HttpBalancer, agent: HandAgent) -> None:
    for stream in (False, True):
        call = Call(balancer, stream=stream)
        request = await agent.take()
        await request.say("hel")
        await request.fail(EngineFailed("it broke"))
        if stream:
            events = await call.events()
            assert texts(events) == "hel"
            error = last_error(events)
        else:
            error = await call.error(500)
        assert (error["code"], error["message"]) == ("engine_failed", "it broke")


async def test_a_request_cancelled_by_someone_else(balancer: HttpBalancer, agent: HandAgent) -> None:
    call = Call(balancer, stream=True)
    request = await agent.take()
    await request.say("hel")
    await request.finish(FinishReason.CANCELLED)
    assert last_error(await call.events())["code"] == "cancelled"


async def test_a_silent_agent_is_504(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer = await new_balancer(inference_item_timeout_ms=300)
    agent = await new_agent(slots=2)
    for stream in (False, True):
        call = Call(balancer, stream=stream)
        request = await agent.take()
        assert (await call.error(504))["code"] == "item_timeout"
        await request.cancelled()


async def test_a_stopping_balancer_tells_its_clients(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2)
    stream, whole = Call(balancer, stream=True), Call(balancer)
    requests = [await agent.take(), await agent.take()]
    for request in requests:
        await request.say("hel")
    waiting = Call(balancer, stream=True)
    await wait_until(balancer.num_waiting)
    balancer.gateway.stop_accepting()

    events = await stream.events()
    assert texts(events) == "hel"
    assert last_error(events)["code"] == "shutting_down"
    for call in (whole, waiting, Call(balancer)):
        assert (await call.error(503))["code"] == "shutting_down"
    for request in requests:
        await request.cancelled()
    assert await balancer.is_idle()
