"""A thousand clients that wait on one balancer at once: what each costs, and that nobody else notices."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest
from balancer_process import BalancerProcess, StartBalancer, read_log
from http_harness import HandAgent, chat, open_raw

from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

STREAMS = 1000
AT_ONCE = 50
MAX_BYTES = 48 * 1024
"""Of memory for each; docs/http.md has what was measured."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_streams(url: str, number: int) -> list[Stream]:
    """Streams whose clients have been told that they wait."""
    opened: list[Stream] = []
    while len(opened) < number:
        some = min(AT_ONCE, number - len(opened))
        opened += await asyncio.gather(*(open_raw(url, chat("hello", stream=True)) for _ in range(some)))
    for reader, _ in opened:
        await asyncio.wait_for(reader.readuntil(b": queued"), 30)
    return opened


async def test_a_thousand_streams_wait_on_one_balancer(start: StartBalancer, store: Store) -> None:
    limits = ("--max-buffered-requests", "2000", "--buffered-request-timeout", "300000")
    balancer = await start(store, *limits)
    async with read_log(balancer):
        await _wait_and_leave(balancer, store)


async def _wait_and_leave(balancer: BalancerProcess, store: Store) -> None:
    url = balancer.addresses["inference"]
    pool = store.pool("default")
    process = psutil.Process(balancer.process.pid)

    async def num_waiting() -> int:
        return await store.redis.xlen(pool.keys.buffer())

    first = await open_streams(url, 1)
    first += await open_streams(url, 49)  # what a balancer needs once is not counted
    before = process.memory_info().rss
    streams = await open_streams(url, STREAMS)
    per_stream = (process.memory_info().rss - before) / STREAMS
    print(f"\n{per_stream / 1024:.1f} KiB for each of {STREAMS} waiting streams")
    assert await num_waiting() == STREAMS + len(first)
    assert per_stream < MAX_BYTES

    # Their company costs others no time.
    async with balancer.http() as http:
        began = time.monotonic()
        assert (await http.get("/health")).text == "OK"
        assert time.monotonic() - began < 1

    # The first is served as if it were alone.
    agent = HandAgent(store)
    await agent.register()
    request = await agent.take()
    await request.say("hello")
    await request.finish()
    reader, _ = first[0]
    assert b"hello" in await asyncio.wait_for(reader.readuntil(b"data: [DONE]"), 10)

    for _, writer in [*streams, *first]:
        writer.close()
    await agent.leave()

    async def all_left() -> bool:
        return await store.redis.xlen(pool.keys.demand()) == 0

    await wait_until(all_left, timeout_s=90, what="what nobody waits for is out of the queue")
