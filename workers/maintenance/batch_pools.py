"""The pools that a batch's lines go to, and how many lines may be under way there."""

from __future__ import annotations

from msgspec.structs import replace

from paddler.batches.batches import Batches
from paddler.batches.records import Batch
from paddler.clock import Clock
from paddler.errors import PaddlerError, RequestNotFound
from paddler.jobs.gateway import Gateway

LINES_PER_SLOT = 2
"""One that runs and one that is ready: what waits longer than that waits better in the file."""
MIN_LINES = 4
"""Of a fleet that is scaled to zero, so that its autoscaler sees that something waits."""
REFRESH_S = 1.0


class BatchPools:
    def __init__(self, batch: Batch, holder: str, batches: Batches, gateway: Gateway, clock: Clock) -> None:
        self._batch_id = batch.id
        self._holder = holder
        self._batches = batches
        self._gateway = gateway
        self._clock = clock
        self._pools = dict(batch.pools)
        self._window = MIN_LINES
        self._fresh_until = 0.0

    async def resolve(self, model: str) -> str:
        """The pool of a model name: once resolved, the same for all runs, for request ids begin with it.

        Raises `ModelNotFound`, `QueueUnavailable`, `LeaseLost`, and what Redis raises."""
        if model not in self._pools:
            pool = await self._gateway.resolve(model)

            def named(batch: Batch) -> Batch:
                return batch if model in batch.pools else replace(batch, pools={**batch.pools, model: pool})

            self._pools = (await self._batches.change(self._batch_id, named, holder=self._holder)).pools
            self._fresh_until = 0.0
        return self._pools[model]

    async def known(self, model: str) -> str:
        """As `resolve`, of a name that an earlier run has met. Raises `RequestNotFound` for another: it has no
        requests."""
        if model not in self._pools:
            raise RequestNotFound(f"no line of this batch has asked for {model[:64]!r} yet.")
        return self._pools[model]

    async def window(self) -> int:
        """How many lines may be under way, as known a second ago; the last known while Redis is away."""
        now = self._clock.monotonic()
        if now >= self._fresh_until:
            try:
                slots = [await self._gateway.num_slots(pool) for pool in set(self._pools.values())]
            except PaddlerError:
                return self._window
            self._window = max(MIN_LINES, LINES_PER_SLOT * sum(slots))
            self._fresh_until = now + REFRESH_S
        return self._window
