"""Claiming when something becomes stealable (life of a request, step 4).

Scripts say after how many ms a waiting request may be taken from its busy holder. The agent claims then, up to 20 %
later at random, so that agents told the same do not all ask at once, and after 1 to 500 ms in any case: a request
may have come that nobody told us about.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from typing import NoReturn

from paddler.clock import Clock
from paddler.store.scripts import PoolScripts
from workers.agent.membership import Membership

MIN_WAIT_S = 0.001
MAX_WAIT_S = 0.5
JITTER = 0.2


def wait_for(steal_after_ms: int, chance: float) -> float:
    """Seconds until the claim; `chance` is uniform in [0, 1)."""
    return min(max(steal_after_ms / 1000 * (1 + JITTER * chance), MIN_WAIT_S), MAX_WAIT_S)


class Claimer:
    """`note` takes the hint of any script; `claim_loop` acts on the earliest since the last claim."""

    def __init__(self, pool: PoolScripts, clock: Clock, membership: Membership) -> None:
        self._pool = pool
        self._clock = clock
        self._membership = membership
        self._due = math.inf
        self._noted = asyncio.Event()

    def note(self, steal_after_ms: int) -> None:
        """0 means that nothing is to be waited for."""
        if steal_after_ms <= 0:
            return
        due = self._clock.monotonic() + wait_for(steal_after_ms, random.random())
        if due < self._due:
            self._due = due
            self._noted.set()

    async def run_claim_once(self) -> None:
        # A poke may bring the time forward while a later one is waited for.
        while (left := self._due - self._clock.monotonic()) > 0:
            self._noted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left if left < math.inf else None):
                    await self._noted.wait()
        self._due = math.inf
        claimed = await self._pool.claim(self._membership.agent_id)
        self.note(claimed.steal_after_ms)

    async def claim_loop(self) -> NoReturn:
        while True:
            await self.run_claim_once()
