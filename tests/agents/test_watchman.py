"""A balancer says when no worker runs, once, and once when one is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from fleet_harness import Fleet
from structlog.testing import capture_logs

from paddler.clock import SystemClock
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.jobs.watchman import Watchman
from paddler.store.client import connect
from paddler.store.keys import WORKER_BEAT_MS, worker_key
from paddler.testing.waiting import wait_until
from workers.maintenance.upkeep import Upkeep

pytestmark = pytest.mark.anyio


class Hurried(SystemClock):
    """A hundred seconds pass in one."""

    def monotonic(self) -> float:
        return super().monotonic() * 100

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100)


class Still(SystemClock):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def said(logged: list[Any]) -> list[str]:
    return [entry["log_level"] for entry in logged if "worker runs" in entry["event"]]


async def test_one_warning_an_outage(fleet: Fleet) -> None:
    clock = Still()
    watchman = Watchman(fleet.store, clock)
    work = Upkeep(fleet.store, clock, lease_ms=500)
    with capture_logs() as logged:
        await watchman.run_once()
        clock.now += WORKER_BEAT_MS / 1000 - 1
        await watchman.run_once()
        assert said(logged) == [], "a worker may start a little later than the balancer"
        clock.now += 1
        await watchman.run_once()
        await watchman.run_once()
        assert said(logged) == ["warning"]
        await work.run_once()
        await watchman.run_once()
        await watchman.run_once()
        assert said(logged) == ["warning", "info"]
    assert 0 < await fleet.store.redis.pttl(worker_key(fleet.store.prefix)) <= WORKER_BEAT_MS


async def test_while_redis_is_away_nothing_is_said(fleet: Fleet) -> None:
    clock = Still()
    store = connect("unix:///nowhere/redis.sock", "p")
    watchman = Watchman(store, clock)
    with capture_logs() as logged:
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                await watchman.run_once()
            clock.now += 100
    assert said(logged) == []
    await store.close()


async def test_every_gateway_has_one(fleet: Fleet) -> None:
    store = connect(fleet.url, fleet.prefix)
    gateway = Gateway(store, GatewaySettings(), Hurried())
    with capture_logs() as logged:
        await gateway.start()
        await wait_until(lambda: said(logged) == ["warning"])
        await asyncio.gather(gateway.close())
    await store.close()
