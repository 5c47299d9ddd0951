"""The fleet, read from Redis when somebody asks: the same on every balancer, whoever is asked."""

from __future__ import annotations

import asyncio
import math

from msgspec import Struct

from paddler.clock import Clock
from paddler.jobs.overview import Overview, PoolQueue
from paddler.metrics.redis_health import RedisHealth, read_redis_health
from paddler.store.client import TROUBLE, Store

PATIENCE_S = 3.0
"""Scrapers give up after 10 s, and what this process knows itself is to be told in any case."""
MAX_AGE_S = 0.5


class FleetReading(Struct, frozen=True, kw_only=True):
    """`redis` is None, and all else empty, when Redis cannot be reached."""

    pools: tuple[PoolQueue, ...] = ()
    is_worker_running: bool = False
    redis: RedisHealth | None = None

    @property
    def slots_total(self) -> int:
        return sum(lane.slots for pool in self.pools for lane in pool.lanes)

    @property
    def slots_processing(self) -> int:
        return sum(min(lane.requests, lane.slots) for pool in self.pools for lane in pool.lanes)

    @property
    def slots_idle(self) -> int:
        """Slots that a request could be given to now: none of an agent that drains, loads, leaves or is lost."""
        return sum(lane.num_idle for pool in self.pools for lane in pool.lanes)

    @property
    def requests_buffered(self) -> int:
        return sum(sum(pool.waiting.values()) for pool in self.pools)

    @property
    def num_agents(self) -> int:
        return sum(len(pool.lanes) for pool in self.pools)

    @property
    def demand(self) -> int:
        return sum(pool.demand for pool in self.pools)

    @property
    def demand_batch(self) -> int:
        return sum(pool.demand_batch for pool in self.pools)


class FleetWatch:
    """One reading at a time, for all who wait for it."""

    def __init__(self, store: Store, clock: Clock, *, max_age_s: float = MAX_AGE_S) -> None:
        self._max_age_s = max_age_s
        self._store = store
        self._overview = Overview(store)
        self._clock = clock
        self._turn = asyncio.Lock()
        self._latest = FleetReading()
        self._read_at = -math.inf

    async def read(self) -> FleetReading:
        """Not older than that."""
        asked_at = self._clock.monotonic()
        async with self._turn:
            # What was read while it waited for its turn is new enough for anybody.
            if self._read_at < asked_at - self._max_age_s:
                begun_at = self._clock.monotonic()
                self._latest = await self._read()
                self._read_at = begun_at
            return self._latest

    async def _read(self) -> FleetReading:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return FleetReading(
                    redis=await read_redis_health(self._store, self._clock),
                    pools=tuple(await self._overview.pools()),
                    is_worker_running=await self._overview.is_worker_running(),
                )
        except TROUBLE:
            return FleetReading()
