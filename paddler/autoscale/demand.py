"""Woken by the next request: a blocking read of the ledgers, `demand` and where it counts `demand:batch`.

A read names the last entry that was there at the last look, or, of a ledger that was empty, none: so it returns at once
for what has come since, and nothing is missed between a look and a read. Entries that have been deleted are not
missed either: those requests have ended.
"""

from __future__ import annotations

from paddler.store.client import Store
from paddler.store.pipe import Pipe

BLOCK_MS = 5000
"""A server that is gone without a word is noticed so late."""
NOTHING = "0-0"


class DemandWatch:
    """Every call raises what Redis raises."""

    def __init__(self, store: Store, pool: str, *, counts_batch: bool) -> None:
        keys = store.pool(pool).keys
        self._redis = store.redis
        self._ledgers = [keys.demand(), *([keys.demand_batch()] if counts_batch else [])]
        self._last = [NOTHING] * len(self._ledgers)

    async def look(self) -> None:
        """Before the pool is read: what comes between is then seen twice, and not missed."""
        pipe = self._redis.pipeline(transaction=False)
        for ledger in self._ledgers:
            pipe.xrevrange(ledger, count=1)
        found: list[list[tuple[bytes, object]]] = await pipe.execute()
        self._last = [entries[0][0].decode() if entries else NOTHING for entries in found]

    async def wait_once(self, pipe: Pipe) -> bool:
        """Whether a request has come since the last look; after `BLOCK_MS` at the latest."""
        found = await pipe.call("XREAD", "COUNT", 1, "BLOCK", BLOCK_MS, "STREAMS", *self._ledgers, *self._last)
        return found is not None
