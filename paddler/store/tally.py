"""Counters of what processes see and no script does: gathered in memory, written together, at most once a second.

Nothing is sent on the way of a token, and an outage (or a full Redis, which refuses even this) loses nothing but what
its process had not written when it was killed.
"""

from __future__ import annotations

from collections import Counter

from paddler.store.client import Store
from paddler.store.counters import TALLIED


class Tally:
    """`count` anywhere, `flush_once` now and then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, pool: str, what: str, number: int = 1) -> None:
        """`what` is one of `TALLIED`."""
        assert what in TALLIED, what
        self._counts[pool, what] += number

    async def flush_once(self) -> None:
        """Write what was counted since the last time. Raises what Redis raises; it is kept for the next time then, and
        may count twice if only the answer was lost."""
        if not self._counts:
            return
        counts, self._counts = self._counts, Counter()
        pipe = self._store.redis.pipeline(transaction=True)
        for (pool, what), number in counts.items():
            pipe.hincrby(self._store.pool(pool).keys.counters(), what, number)
        try:
            await pipe.execute()
        except BaseException:
            self._counts.update(counts)
            raise
