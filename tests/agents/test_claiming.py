"""When an agent claims again: at the earliest of what it was told."""

from __future__ import annotations

import asyncio

import pytest
from fleet_harness import Fleet

from paddler.clock import SystemClock
from paddler.testing.waiting import wait_until
from workers.agent import claiming
from workers.agent.claiming import Claimer, wait_for

pytestmark = pytest.mark.anyio


def test_bounds_and_jitter() -> None:
    assert wait_for(100, 0.0) == pytest.approx(0.1)
    assert wait_for(100, 0.999) == pytest.approx(0.12, rel=0.01)
    assert wait_for(0, 0.0) == claiming.MIN_WAIT_S
    assert wait_for(10_000, 0.5) == claiming.MAX_WAIT_S


async def test_a_poke_is_heard_while_a_later_one_is_waited_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in review: it slept out the longer time, half a second in which a request waited beside a free slot."""
    monkeypatch.setattr(claiming, "MAX_WAIT_S", 3600.0)
    agent = await fleet.agent()
    claimer = Claimer(fleet.pool, SystemClock(), agent.loop._membership)
    claiming_once = asyncio.create_task(claimer.run_claim_once())
    claimer.note(3_600_000)
    await wait_until(lambda: not claimer._noted.is_set(), what="it waits")
    claimer.note(5)
    claimer.note(0)
    claimer.note(3_600_000)
    await wait_until(claiming_once.done, timeout_s=10, what="it claims after the shorter time")
    claiming_once.result()


async def test_nothing_is_claimed_that_nobody_spoke_of(fleet: Fleet) -> None:
    agent = await fleet.agent()
    claimer = Claimer(fleet.pool, SystemClock(), agent.loop._membership)
    claiming_once = asyncio.create_task(claimer.run_claim_once())
    claimer.note(0)
    await fleet.pool.redis.ping()
    assert not claiming_once.done()
    claimer.note(1)
    await wait_until(claiming_once.done, what="a hint is followed")
