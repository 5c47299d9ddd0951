"""The audit as the worker runs it: it finds what is broken by its own means, and leaves a busy fleet alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleet_harness import Fleet
from queue_calls import submit

from paddler.clock import SystemClock
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.store.results import Mended
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from workers.maintenance.audit import Auditor
from workers.maintenance.upkeep import Upkeep

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()


async def test_a_busy_fleet_is_never_repaired(fleet: Fleet) -> None:
    """Small pages, no pause: every step of every request is looked at from all sides while an agent is lost, another
    leaves, and clients hang up."""
    gateway = await fleet.gateway(max_buffered_requests=1000)
    agents = [await fleet.agent(slots=2, step_s=0.002, lease_ms=1000) for _ in range(3)]
    auditor, mended, rounds = Auditor(fleet.store, page=7), list[Mended](), 0

    async def one(number: int) -> None:
        reply = await gateway.submit("default", Generate(prompt=f"number {number} [[tokens=60]]", max_tokens=60))
        async with reply:
            async for _ in reply:
                if number % 7 == 0:
                    return

    async def audit() -> None:
        nonlocal mended, rounds
        while True:
            mended += await auditor.run_once(["default"])
            rounds += 1
            await asyncio.sleep(0)

    auditing = asyncio.create_task(audit())
    asking = [asyncio.create_task(one(number)) for number in range(60)]
    await wait_until(lambda: sum(task.done() for task in asking) > 10)
    await agents[0].kill()
    await agents[1].leave()
    await asyncio.gather(*asking)
    await wait_until(fleet.is_idle)
    auditing.cancel()
    assert mended == []
    assert rounds > 10
    counters: dict[bytes, bytes] = await fleet.store.redis.hgetall(fleet.pool.keys.counters())
    assert [name for name in counters if name.startswith(b"repaired_")] == []
    assert int(counters[b"reaped"]) == 1, "the fleet had its troubles"


async def test_a_worker_finds_whatever_is_broken(fleet: Fleet) -> None:
    pool, keys, redis = fleet.pool, fleet.pool.keys, fleet.store.redis
    waiting = [(await submit(pool, now=0))[0] for _ in range(30)]
    await redis.xadd(keys.demand(), {"id": "unknown-0"})
    await redis.xadd(keys.demand_batch(), {"id": "unknown-1"})
    await redis.xadd(keys.buffer(), {"id": "unknown-2"})
    await redis.zadd(keys.order("batch"), {"unknown-3": 1})
    await redis.zadd(keys.age(), {"unknown-4": 1})
    await redis.zadd(keys.deadlines(), {"unknown-5": 9e15})
    await redis.sadd(keys.queued("foreground", "anonymous"), "unknown-6")
    await redis.xadd(keys.lane("agent-2"), {"id": "unknown-7"})
    await redis.sadd(keys.preempted("agent-3"), "unknown-8")
    await redis.set(keys.journal("unknown-9"), "x")
    await redis.set(keys.backlog("foreground"), 12)
    await redis.sadd(keys.aside(), "unknown-10")
    await redis.zrem(keys.order("normal"), waiting[17])
    await redis.zadd(keys.holders("hash"), {"dead": 1, "alive": 9e15})
    await redis.expire(keys.holders("hash"), 100)

    auditor, found = Auditor(fleet.store, page=7), list[Mended]()

    async def is_whole() -> bool:
        nonlocal found
        found += await auditor.run_once(["default"])
        return {"repaired_agent", "repaired_ttl"} <= {one.what for one in found} and len(found) >= 13

    await wait_until(is_whole, what="all is found")
    assert {one.id for one in found} == {
        "foreground",
        waiting[17],
        "agent-2",
        "agent-3",
        *(f"unknown-{number}" for number in range(11) if number not in (7, 8)),
    }

    async def is_trimmed() -> bool:
        await auditor.run_once(["default"])
        return await redis.zrange(keys.holders("hash"), 0, -1) == [b"alive"]

    await wait_until(is_trimmed)
    assert [await fleet.num_waiting(), await fleet.demand()] == [30, 30]
    for request_id in waiting:
        await pool.cancel(request_id, CANCELLED_FRAME)
    assert await redis.get(keys.backlog("foreground")) == b"0"


async def test_what_nobody_follows_is_cancelled_after_the_grace_time(fleet: Fleet) -> None:
    gateway = await fleet.gateway(buffered_request_timeout_ms=60_000)
    reply = await gateway.submit("default", Generate(prompt="followed"))
    alone, _ = await submit(fleet.pool, now=0, inbox="nobody")
    batch, _ = await submit(fleet.pool, now=0, inbox="nobody", is_background=True)
    work = Upkeep(fleet.store, CLOCK, lease_ms=500, orphan_grace_ms=300)
    began = CLOCK.monotonic()

    async def state(request_id: str) -> Any:
        return await fleet.store.redis.hget(fleet.pool.keys.request(request_id), "state")

    async def is_cancelled() -> bool:
        await work.run_once()
        return await state(alone) == b"cancelled"

    await wait_until(is_cancelled)
    assert CLOCK.monotonic() - began >= 0.8, "a lease without trouble, then the grace time"
    for _ in range(3):
        await work.run_once()
    assert [await state(batch), await state(reply.request_id)] == [b"waiting", b"waiting"]
    await fleet.pool.cancel(batch, CANCELLED_FRAME)
    async with reply:
        pass
    await wait_until(fleet.is_idle)


async def test_lists_that_only_grow_are_trimmed(fleet: Fleet) -> None:
    keys, redis = fleet.pool.keys, fleet.store.redis
    pipe = redis.pipeline()
    for number in range(1005):
        pipe.xadd(keys.dead(), {"id": f"dead-{number}", "deaths": 3})
    await pipe.execute()
    await redis.zadd(keys.balancers(), {"gone": 1, "alive": 9e15})
    await Upkeep(fleet.store, CLOCK, lease_ms=500).run_once()
    assert await redis.xlen(keys.dead()) == 1000
    assert await redis.zrange(keys.balancers(), 0, -1) == [b"alive"]
