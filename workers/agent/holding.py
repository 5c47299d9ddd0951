"""Publishing what this agent's KV cache holds, so that requests come to where their prefix is (step 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from paddler.clock import Clock
from paddler.store.scripts import PoolScripts
from workers.agent.membership import Membership
from workers.agent.residency import Residency

TTL_MS = 300_000
GATHER_S = 0.02


class Holding:
    """One publication carries all changes since the last. After a new registration everything is said again."""

    def __init__(
        self,
        pool: PoolScripts,
        clock: Clock,
        membership: Membership,
        residency: Residency,
        *,
        is_shared: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_shared`: what it holds is in the shared store, too, soon."""
        self._pool = pool
        self._clock = clock
        self._membership = membership
        self._is_shared = is_shared
        self.residency = residency
        self._changed = asyncio.Event()
        self._known_as = ""
        self._republish_at = 0.0

    def touch(self) -> None:
        """The residency may have changed."""
        self._changed.set()

    async def run_publish_once(self) -> None:
        """Wait for a change (or the time to say everything again, before holders forget) and publish it."""
        try:
            async with asyncio.timeout(max(0.0, self._republish_at - self._clock.monotonic())):
                await self._changed.wait()
            await self._clock.sleep(GATHER_S)
        except TimeoutError:
            pass
        self._changed.clear()
        agent_id, now = self._membership.agent_id, self._clock.monotonic()
        if agent_id != self._known_as or now >= self._republish_at:
            added, removed = self.residency.all(), ()
        else:
            changes = self.residency.changes()
            added, removed = changes.added, changes.removed
        self._known_as = ""
        is_shared = self._is_shared()
        if await self._pool.hold(agent_id, ttl_ms=TTL_MS, added=added, removed=removed, is_shared=is_shared):
            self._known_as = agent_id
            self._republish_at = now + TTL_MS / 3000
        else:
            self._republish_at = now + 1.0
