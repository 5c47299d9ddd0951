"""What a balancer does for tenants beside its requests: it looks for changed keys, and accounts what has ended."""

from __future__ import annotations

import asyncio

from paddler.clock import Clock
from paddler.store.client import Store
from paddler.tenants.accounting import Accountant
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing


class TenantWatch:
    """`start` before use, `close` after."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.ring = KeyRing(ApiKeys(store, clock), clock)
        self._accountant = Accountant(store)
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Redis need not be there yet."""
        loops = (self.ring.watch_loop(), self._account_loop())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _account_loop(self) -> None:
        """Nothing is read as long as there is no key, whose requests alone are accounted."""
        await self.ring.wait_for_keys()
        await self._accountant.loop(self._clock)
