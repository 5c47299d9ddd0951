"""A pool as operators see it, read from Redis when somebody asks and the last reading is old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from paddler.clock import Clock
from paddler.errors import QueueUnavailable
from paddler.jobs.models import DEFAULT_POOL
from paddler.jobs.overview import Overview, PoolQueue
from paddler.store.client import TROUBLE, Store

REFRESH_S = 0.5
"""So many seconds a stream may be behind, and as often Redis is read at most, however many look."""
PATIENCE_S = 3.0


class PoolWatch:
    """One reading at a time, for all who wait for it: many who look cost Redis what one does."""

    def __init__(self, store: Store, clock: Clock, name: str = DEFAULT_POOL) -> None:
        self._name = name
        self._overview = Overview(store)
        self._clock = clock
        self._turn = asyncio.Lock()
        self._latest: PoolQueue | None = None
        self._read_at = 0.0
        self._made: dict[Callable[[PoolQueue], bytes], bytes] = {}

    async def made(self, make: Callable[[PoolQueue], bytes], *, max_age_s: float = 0.0) -> bytes:
        """What `make` makes of the pool, once for all who look at one reading. Raises `QueueUnavailable`."""
        pool = await self.pool(max_age_s=max_age_s)
        if make not in self._made:
            self._made[make] = make(pool)
        return self._made[make]

    async def pool(self, *, max_age_s: float = 0.0) -> PoolQueue:
        """Not older than this. Raises `QueueUnavailable`."""
        asked_at = self._clock.monotonic()
        async with self._turn:
            # What was read while it waited for its turn is new enough for anybody.
            if self._latest is None or self._read_at < asked_at - max_age_s:
                begun_at = self._clock.monotonic()
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._latest = await self._overview.pool(self._name)
                        self._made.clear()
                except TROUBLE as error:
                    raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
                self._read_at = begun_at
            return self._latest


class PoolWatches:
    """One watch a pool."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._watches: dict[str, PoolWatch] = {}

    def of(self, name: str = DEFAULT_POOL) -> PoolWatch:
        """Of a pool that exists."""
        if name not in self._watches:
            self._watches[name] = PoolWatch(self._store, self._clock, name)
        return self._watches[name]
