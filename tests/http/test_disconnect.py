"""A client that goes away frees what it held: waiting, in prefill, in decode; streaming or not."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, chat, open_raw
from structlog.testing import capture_logs

from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

STREAMING = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@STREAMING
async def test_waiting(balancer: HttpBalancer, stream: bool) -> None:
    _, writer = await open_raw(balancer.url(), chat(stream=stream))
    await wait_until(balancer.num_waiting)
    writer.close()
    await wait_until(balancer.is_idle, timeout_s=3)
    assert await balancer.num_waiting() == 0


@STREAMING
async def test_in_prefill(balancer: HttpBalancer, agent: HandAgent, stream: bool) -> None:
    _, writer = await open_raw(balancer.url(), chat(stream=stream))
    request = await agent.take()
    writer.close()
    await request.cancelled()
    assert await balancer.is_idle()


@STREAMING
async def test_in_decode(balancer: HttpBalancer, agent: HandAgent, stream: bool) -> None:
    reader, writer = await open_raw(balancer.url(), chat(stream=stream))
    request = await agent.take()
    await request.say("hello")
    if stream:
        await reader.readuntil(b"hello")
    writer.close()
    await request.cancelled()
    assert await balancer.is_idle()


@STREAMING
async def test_a_reset_connection(balancer: HttpBalancer, agent: HandAgent, stream: bool) -> None:
    _, writer = await open_raw(balancer.url(), chat(stream=stream))
    request = await agent.take()
    writer.transport.abort()
    await request.cancelled()


@STREAMING
async def test_a_half_closed_connection_counts_as_gone(balancer: HttpBalancer, agent: HandAgent, stream: bool) -> None:
    _, writer = await open_raw(balancer.url(), chat(stream=stream))
    request = await agent.take()
    writer.write_eof()
    await request.cancelled()
    writer.close()


async def test_a_client_that_stopped_reading_and_leaves(balancer: HttpBalancer, agent: HandAgent) -> None:
    reader, writer = await open_raw(balancer.url(), chat(stream=True))
    request = await agent.take()
    await request.say("hello")
    await reader.readuntil(b"hello")
    for _ in range(40):
        await request.say("x" * 200_000)
    writer.transport.abort()
    await request.cancelled()


async def test_a_leaving_client_is_no_error(
    balancer: HttpBalancer, agent: HandAgent, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logged:
        for stream in (False, True):
            _, writer = await open_raw(balancer.url(), chat(stream=stream))
            request = await agent.take()
            writer.close()
            await request.cancelled()
            await wait_until(lambda: balancer.num_tasks() == 0)
    # But for the line that each request has.
    assert [entry["event"] for entry in logged if entry["log_level"] != "debug"] == ["request", "request"]
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_the_siblings_of_a_leaving_client_are_not_hurt(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        staying = asyncio.create_task(http.post("/v1/chat/completions", json=chat()))
        request = await agent.take()
        _, writer = await open_raw(balancer.url(), chat())
        await wait_until(balancer.num_waiting)
        writer.close()

        async def only_one_is_left() -> bool:
            return await balancer.demand() == 1

        await wait_until(only_one_is_left)
        await request.say("hello")
        await request.finish()
        answer: httpx.Response = await staying
        assert answer.json()["choices"][0]["message"]["content"] == "hello"


async def test_an_answered_request_is_not_cancelled(balancer: HttpBalancer, agent: HandAgent) -> None:
    """The server reports a disconnect after each answer; that must not reach the queue."""
    with capture_logs() as logged:
        async with balancer.http() as http:
            for stream in (False, True):
                posting = asyncio.create_task(http.post("/v1/chat/completions", json=chat(stream=stream)))
                request = await agent.take()
                await request.say("hello")
                await request.finish()
                await posting
                await wait_until(lambda: balancer.num_tasks() == 0)
    assert [entry for entry in logged if entry["event"] == "cancelled"] == []
