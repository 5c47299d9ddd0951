"""Batches in Redis: created, looked at and cancelled by balancers, taken and changed by the worker that runs them.

A record is read, changed and set again if nobody else has changed it meanwhile and its holder still has it
(`change_batch.lua`). The holder is the fence: a run that has lost its lease changes nothing any more, however late it
wakes. Every change states absolute values, so that repeating one whose answer was lost is harmless.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from paddler.batches.files import told_as_unavailable
from paddler.batches.jobs import BatchJobs
from paddler.batches.paging import Index, Page
from paddler.batches.quota import NO_QUOTA, Quota, batches_full, lines_full
from paddler.batches.records import Batch, decode_batch, encode
from paddler.clock import Clock
from paddler.errors import BatchNotFound, Conflict, QueueUnavailable, StorageFull
from paddler.store.client import TROUBLE, Store
from paddler.store.keys import FileKeys
from paddler.store.scripts_batch import Changed, Opened, OpenedBatch

KEEP_S = 30 * 86_400
"""How long a batch is remembered behind its window."""
MAX_OPEN = 1000
"""Batches that have not ended, of all clients together."""
MAX_TRIES = 50
"""Of one change: each loses only to another that has gone through."""

MAX_REST_S = 60
"""Of a batch whose runs end early: from 1 s, doubled with each."""

UNTAKEN_S = 30.0
"""A job that is not begun for so long is given to another worker, if one has it."""

Change = Callable[[Batch], Batch]


class LeaseLost(Exception):
    """Another worker has the batch; this run must end without a word."""


class Batches:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._redis = store.redis
        self._scripts = store.batch_scripts
        self._keys = FileKeys(store.prefix)
        self._index = Index(store.redis, self._keys.batches(), self._keys.batch, decode_batch)
        self._jobs = BatchJobs(store)
        self._clock = clock
        self._given: dict[str, tuple[int, float]] = {}

    async def create(self, batch: Batch, *, num_lines: int = 0, quota: Quota = NO_QUOTA) -> None:
        """Keep it and have a worker run it. `num_lines` are those of its input. Raises `StorageFull`,
        `TenantBatchesFull`, `TenantLinesFull`, `QueueUnavailable`."""
        with told_as_unavailable():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(self._keys.batch(batch.id), encode(batch), ex=batch.expires_at - batch.created_at + KEEP_S)
            self._index.add(pipe, batch.id, self._clock.wall() * 1000)
            await pipe.execute()
            # Last: what is open but has no record would be looked for by every worker.
            opened = await self._scripts.open_batch(
                self._keys.open_batches(),
                batch.id,
                input_file_id=batch.input_file_id,
                tenant=batch.tenant,
                num_lines=num_lines,
                max_all=MAX_OPEN,
                max_batches=None if quota.open_batches is None else quota.open_batches.most,
                max_lines=None if quota.batch_lines is None else quota.batch_lines.most,
            )
            if opened.outcome is not Opened.OK:
                await self._redis.unlink(self._keys.batch(batch.id))
                await self._index.remove([batch.id])
        _check_opened(opened, num_lines, quota)
        # Should this be lost, every worker looks for batches that nobody has.
        with contextlib.suppress(*TROUBLE):
            await self._jobs.enqueue(batch)

    async def get(self, batch_id: str, *, tenant: str | None = None) -> Batch:
        """With `tenant` only one of that tenant. Raises `BatchNotFound`, `QueueUnavailable`."""
        with told_as_unavailable():
            batch = self._decoded(batch_id, await self._redis.get(self._keys.batch(batch_id)))
        if tenant not in (None, batch.tenant):
            raise _not_found(batch_id)
        return batch

    async def list(self, *, after: str | None = None, limit: int, tenant: str | None = None) -> Page[Batch]:
        """The newest first, with `tenant` only those of that tenant. Raises `BatchNotFound` for an unknown `after`,
        `QueueUnavailable`."""

        def is_known(batch: Batch) -> bool:
            return tenant in (None, batch.tenant)

        with told_as_unavailable():
            page = await self._index.page(
                after=after, limit=limit, newest_first=True, wanted=is_known, is_known=is_known
            )
        if page is None:
            raise BatchNotFound(f"`after`: there is no batch {str(after)[:64]!r}.", param="after")
        return page

    async def cancel(self, batch_id: str, *, tenant: str | None = None) -> Batch:
        """The worker that has it stops what runs; a batch that nobody has is ended by the first that takes it.

        As `get`. Raises `BatchNotFound`, `QueueUnavailable`, and `Conflict` for one that has ended."""
        await self.get(batch_id, tenant=tenant)
        now = int(self._clock.wall())

        def cancelling(batch: Batch) -> Batch:
            if batch.has_ended or batch.status == "finalizing":
                raise Conflict(f"This batch is {batch.status}; only one that has not ended can be cancelled.")
            if batch.status == "cancelling":
                return batch
            return replace(batch, status="cancelling", cancelling_at=now)

        with told_as_unavailable():
            return await self.change(batch_id, cancelling)

    async def take(self, batch_id: str, holder: str, *, lease_ms: int) -> Batch | None:
        """For `holder`, unless another has it or it has ended. Raises what Redis raises."""
        if not await self._redis.set(self._keys.holder(batch_id), holder, nx=True, px=lease_ms):
            return None

        def taken(batch: Batch) -> Batch:
            if batch.has_ended:
                return batch
            return replace(batch, runs=batch.runs + 1, fruitless=batch.fruitless + 1)

        try:
            batch = await self.change(batch_id, taken, holder=holder)
        except BatchNotFound:
            await self._redis.hdel(self._keys.open_batches(), batch_id)
            return None
        if batch.has_ended:
            await self._redis.hdel(self._keys.open_batches(), batch_id)
            await self.release(batch_id, holder)
            return None
        return batch

    async def renew(self, batch_id: str, holder: str, *, lease_ms: int) -> Batch:
        """Its state now. Raises `LeaseLost`, and what Redis raises."""
        await self._as_holder(batch_id, holder, lease_ms=lease_ms)
        return self._decoded(batch_id, await self._redis.get(self._keys.batch(batch_id)))

    async def release(self, batch_id: str, holder: str) -> None:
        """Another worker may take it at once. Raises what Redis raises."""
        with contextlib.suppress(LeaseLost):
            await self._as_holder(batch_id, holder, lease_ms=-1)

    async def rest(self, batch_id: str, holder: str, *, is_fruitless: bool) -> int:
        """Nobody takes it for the seconds returned, after a run that ended early. `is_fruitless` is one that trouble
        of Redis or the storage does not explain. Raises `LeaseLost`, and what Redis raises."""

        def interrupted(batch: Batch) -> Batch:
            fruitless = batch.fruitless if is_fruitless else max(0, batch.fruitless - 1)
            return replace(batch, troubles=batch.troubles + 1, fruitless=fruitless)

        batch = await self.change(batch_id, interrupted, holder=holder)
        rest_s = min(MAX_REST_S, 2 ** min(batch.troubles - 1, 10))
        await self._as_holder(batch_id, holder, lease_ms=rest_s * 1000)
        return rest_s

    async def _as_holder(self, batch_id: str, holder: str, *, lease_ms: int) -> None:
        changed = await self._scripts.change_batch(self._keys.batch(batch_id), holder=holder, lease_ms=lease_ms)
        if changed is Changed.LOST:
            raise _lost(batch_id)

    async def done_lines(self, batch_id: str) -> bytes:
        """A bit a line, that of line 1 first. Raises what Redis raises."""
        return await self._redis.get(self._keys.done(batch_id)) or b""

    async def end(self, batch_id: str, holder: str, change: Change) -> Batch:
        """With its last status. Raises `LeaseLost`, and what Redis raises."""
        batch = await self.change(batch_id, change, holder=holder)
        # Should this be lost, whoever takes it finds that it has ended.
        await self._redis.hdel(self._keys.open_batches(), batch_id)
        await self._redis.unlink(self._keys.done(batch_id))
        return batch

    async def change(
        self, batch_id: str, change: Change, *, holder: str | None = None, done: Sequence[int] = ()
    ) -> Batch:
        """Change its record, by `holder` only while that has it. `done` are lines, counted from 1, that are in the
        files by now.

        Raises `BatchNotFound`, `LeaseLost`, what `change` raises, and what Redis raises."""
        key = self._keys.batch(batch_id)
        for _ in range(MAX_TRIES):
            data = await self._redis.get(key)
            after = change(self._decoded(batch_id, data))
            changed = await self._scripts.change_batch(
                key,
                expected=data,
                record=encode(after),
                holder=holder or "",
                ttl_s=KEEP_S,
                lines=[line - 1 for line in done],
            )
            match changed:
                case Changed.OK:
                    return after
                case Changed.LOST:
                    raise _lost(batch_id)
                case Changed.MOVED:
                    continue
        raise QueueUnavailable("the batch is being changed by too many at once.", retry_after_s=1)

    async def give_back_lost(self) -> list[str]:
        """Have batches run again that no worker has: it died, or was stopped. Raises what Redis raises."""
        names = [name.decode() for name in await self._redis.hkeys(self._keys.open_batches())]
        pipe = self._redis.pipeline(transaction=False)
        for batch_id in names:
            pipe.exists(self._keys.holder(batch_id))
            pipe.get(self._keys.batch(batch_id))
        found: list[Any] = await pipe.execute() if names else []
        given: list[str] = []
        for batch_id, is_held, data in zip(names, found[::2], found[1::2], strict=True):
            if data is None:
                await self._redis.hdel(self._keys.open_batches(), batch_id)
            elif not is_held and await self._give(decode_batch(data)):
                given.append(batch_id)
        return given

    async def _give(self, batch: Batch) -> bool:
        """Once for each run, unless that is not begun for long."""
        now = self._clock.monotonic()
        run, since = self._given.get(batch.id, (-1, now))
        if run == batch.runs:
            if now - since < UNTAKEN_S:
                return False
            # A worker died as it had been given the job and before it could take the batch.
            await self._jobs.give_again(batch)
        self._given[batch.id] = (batch.runs, now)
        return await self._jobs.enqueue(batch)

    async def purge_once(self) -> None:
        """Forget what has expired. Raises what Redis raises."""
        self._given.clear()
        await self._index.remove(await self._index.expired())

    def _decoded(self, batch_id: str, data: bytes | None) -> Batch:
        if data is None:
            raise _not_found(batch_id)
        return decode_batch(data)


def _check_opened(opened: OpenedBatch, num_lines: int, quota: Quota) -> None:
    """Raises what `Batches.create` says."""
    match opened.outcome:
        case Opened.OK:
            return
        case Opened.FULL:
            raise StorageFull(f"{opened.held} batches have not ended, as many as there may be.")
        case Opened.BATCHES:
            assert quota.open_batches is not None
            raise batches_full(quota.open_batches, opened.held)
        case Opened.LINES:
            assert quota.batch_lines is not None
            raise lines_full(quota.batch_lines, opened.held, num_lines)


def _not_found(batch_id: str) -> BatchNotFound:
    return BatchNotFound(f"There is no batch {batch_id[:64]!r}; it may have been forgotten.", param="batch_id")


def _lost(batch_id: str) -> LeaseLost:
    return LeaseLost(f"another worker has the batch {batch_id}")
