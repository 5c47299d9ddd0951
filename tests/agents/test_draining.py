"""Drained and removed agents: the real loops, what they hear and what they do."""

from __future__ import annotations

import asyncio

import pytest
from fleet_harness import Fleet, RunningAgent

from paddler.jobs.agent_orders import AgentOrders
from paddler.store.results import Order
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, Opened

pytestmark = pytest.mark.anyio


async def tell(fleet: Fleet, agent: RunningAgent, order: Order, *, is_forced: bool = False) -> None:
    ordered = await AgentOrders(fleet.store).tell("default", agent.loop.agent_id, order, is_forced=is_forced)
    assert ordered is not None
    assert ordered.is_obeyed


async def test_a_drained_agent_ends_what_it_runs_and_gets_no_more(fleet: Fleet) -> None:
    gateway = await fleet.gateway(buffered_request_timeout_ms=60_000)
    agent = await fleet.agent(slots=1, step_s=0.005)

    begun = asyncio.Event()

    async def answered() -> int | None:
        opened: list[Opened] = []
        async with await gateway.submit("default", Generate(prompt="[[tokens=40]]")) as reply:
            async for frame in reply:
                if isinstance(frame, Opened):
                    opened.append(frame)
                    begun.set()
        return opened[-1].attempt

    first = asyncio.create_task(answered())
    # Before it is opened in Redis, too, a drain would give it back to the buffer.
    await begun.wait()
    await tell(fleet, agent, Order.DRAIN)
    second = asyncio.create_task(answered())
    assert await first == 1, "it ended where it was"
    await wait_until(fleet.num_waiting, what="the other waits")
    assert not second.done()
    assert agent.loop.num_running == 0
    await tell(fleet, agent, Order.UNDRAIN)
    assert await second == 1


async def test_a_drained_agent_that_lost_its_lease_registers_drained(fleet: Fleet) -> None:
    gateway = await fleet.gateway(buffered_request_timeout_ms=60_000)
    agent = await fleet.agent(slots=1, process="one")
    await tell(fleet, agent, Order.DRAIN)
    before = agent.loop.agent_id
    await fleet.pool.redis.zadd(fleet.pool.keys.agents(), {before: 1})

    async def is_back() -> bool:
        found = await fleet.pool.redis.zscore(fleet.pool.keys.agents(), agent.loop.agent_id)
        return agent.loop.agent_id != before and found is not None

    await wait_until(is_back, what="it has registered anew")
    async with await gateway.submit("default", Generate(prompt="hi")) as reply:
        await wait_until(fleet.num_waiting, what="nobody takes it")
        await tell(fleet, agent, Order.UNDRAIN)
        frames = [frame async for frame in reply]
    assert isinstance(frames[-1], Finished)


@pytest.mark.parametrize("is_forced", [False, True], ids=["asked", "forced"])
async def test_a_removed_agent_is_told_to_end(fleet: Fleet, is_forced: bool) -> None:
    removed = asyncio.Event()
    agent = await fleet.agent(process="one", on_removed=removed.set)
    await tell(fleet, agent, Order.REMOVE, is_forced=is_forced)
    async with asyncio.timeout(20):
        await removed.wait()
    await agent.leave()
    assert await fleet.pool.redis.zcard(fleet.pool.keys.agents()) == 0
    await agent_cannot_come_back(fleet)


async def agent_cannot_come_back(fleet: Fleet) -> None:
    snapshot = {"slots": 1, "state": "ready", "process_id": "one"}
    claimed = await fleet.pool.register("again", lease_ms=1000, model="m", seen_s=1, snapshot=snapshot)
    assert claimed.num_given == -1


async def test_a_removed_agent_that_hears_nothing_is_told_by_its_lease(fleet: Fleet) -> None:
    """The control channel only makes it faster: who missed it hears it when it renews."""
    removed = asyncio.Event()
    agent = await fleet.agent(process="one", on_removed=removed.set)
    await fleet.pool.redis.hset(fleet.pool.keys.agent(agent.loop.agent_id), "drain", "remove")
    async with asyncio.timeout(20):
        await removed.wait()
    await agent.leave()
