"""Which of several processes does what is to be done once."""

from __future__ import annotations

from paddler.clock import Clock
from paddler.store.client import Store

LEASE_MS = 5000


class Lease:
    """Held by one process at a time, and for `LEASE_MS` after it was killed at most."""

    def __init__(self, store: Store, clock: Clock, key: str, who: str) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self._who = who
        self._held_until = 0.0

    @property
    def is_held(self) -> bool:
        """By its own clock, which began before Redis's: two never think so at once."""
        return self._clock.monotonic() < self._held_until

    async def run_once(self) -> None:
        """Take or prolong it. Raises what Redis raises."""
        asked_at = self._clock.monotonic()
        is_ours = await self._store.leases.lead(self._key, self._who, lease_ms=LEASE_MS)
        self._held_until = asked_at + LEASE_MS / 1000 if is_ours else 0.0

    async def give_up(self) -> None:
        """Raises what Redis raises."""
        self._held_until = 0.0
        await self._store.leases.lead(self._key, self._who, lease_ms=0)
