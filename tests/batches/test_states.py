"""Who may change a batch, and who gets it when."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from batch_harness import new_batch
from msgspec.structs import replace

from paddler.batches.batches import Batches, LeaseLost
from paddler.batches.records import Batch
from paddler.clock import SystemClock
from paddler.errors import BatchNotFound, Conflict
from paddler.ids import new_batch_id
from paddler.store.client import Store
from paddler.store.keys import FileKeys, batch_jobs_key

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
LEASE_MS = 5000


async def queued(store: Store) -> list[str]:
    return [one.decode() for one in await store.redis.zrange(batch_jobs_key(store.prefix), 0, -1)]


async def end(batches: Batches, batch: Batch, holder: str) -> None:
    await batches.end(batch.id, holder, lambda batch: replace(batch, status="completed"))


async def test_one_worker_has_a_batch(store: Store) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    taken = await asyncio.gather(*(batches.take(batch.id, f"w{n}", lease_ms=LEASE_MS) for n in range(5)))
    (holder,) = [f"w{n}" for n, found in enumerate(taken) if found is not None]
    assert (await batches.get(batch.id)).runs == 1
    with pytest.raises(LeaseLost):
        await batches.renew(batch.id, "another", lease_ms=LEASE_MS)
    await batches.release(batch.id, "another")
    assert await batches.take(batch.id, "another", lease_ms=LEASE_MS) is None
    await batches.release(batch.id, holder)
    assert await batches.take(batch.id, "another", lease_ms=LEASE_MS) is not None
    await end(batches, batch, "another")


async def test_a_run_that_lost_its_lease_changes_nothing(store: Store) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    await batches.take(batch.id, "old", lease_ms=LEASE_MS)
    await store.redis.delete(FileKeys(store.prefix).holder(batch.id))  # what its TTL does
    await batches.take(batch.id, "new", lease_ms=LEASE_MS)
    for change in (batches.change(batch.id, lambda batch: batch, holder="old", done=[1]), end(batches, batch, "old")):
        with pytest.raises(LeaseLost):
            await change
    assert await batches.done_lines(batch.id) == b""
    await batches.change(batch.id, lambda batch: replace(batch, completed=2), holder="new", done=[1, 10])
    assert await batches.done_lines(batch.id) == bytes([0b1000_0000, 0b0100_0000])
    assert (await batches.get(batch.id)).completed == 2
    await end(batches, batch, "new")
    assert await batches.take(batch.id, "later", lease_ms=LEASE_MS) is None


async def test_changes_at_the_same_time_are_all_made(store: Store) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    await batches.take(batch.id, "w", lease_ms=LEASE_MS)

    def name(number: int) -> Coroutine[Any, Any, Batch]:
        return batches.change(batch.id, lambda one: replace(one, pools=one.pools | {str(number): "default"}))

    names = [name(number) for number in range(10)]
    await asyncio.gather(*names, batches.cancel(batch.id), batches.renew(batch.id, "w", lease_ms=LEASE_MS))
    found = await batches.get(batch.id)
    assert (len(found.pools), found.status) == (10, "cancelling")
    await end(batches, batch, "w")


async def test_a_lost_workers_batch_is_given_away_once(store: Store) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    first = await queued(store)
    assert len(first) == 1
    assert await batches.give_back_lost() == [], "its job is there already"
    await batches.take(batch.id, "w", lease_ms=LEASE_MS)
    assert await batches.give_back_lost() == [], "a worker has it"
    await store.redis.delete(FileKeys(store.prefix).holder(batch.id))
    assert await batches.give_back_lost() == [batch.id]
    assert await batches.give_back_lost() == []
    second = await queued(store)
    assert len(second) == 1
    assert second != first, "the lost worker's job is forgotten"
    await batches.take(batch.id, "w", lease_ms=LEASE_MS)
    await end(batches, batch, "w")
    assert await batches.give_back_lost() == []
    await store.redis.delete(batch_jobs_key(store.prefix))


async def test_a_job_that_its_worker_never_began_is_given_again(store: Store) -> None:
    class LateClock(SystemClock):
        late_s = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.late_s

    clock = LateClock()
    batches, batch = Batches(store, clock), new_batch()
    await batches.create(batch)
    (job,) = await queued(store)
    key = f"arq:in-progress:{job}"
    await store.redis.set(key, 1, ex=600)
    await batches.give_back_lost()
    assert await store.redis.exists(key), "it may take it in this moment"
    clock.late_s = 31
    await batches.give_back_lost()
    assert not await store.redis.exists(key)
    await batches.take(batch.id, "w", lease_ms=LEASE_MS)
    await end(batches, batch, "w")


async def test_what_has_ended_cannot_be_cancelled(store: Store) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    with pytest.raises(BatchNotFound):
        await batches.cancel(batch.id)
    await batches.create(batch)
    assert (await batches.cancel(batch.id)).status == "cancelling"
    assert (await batches.cancel(batch.id)).status == "cancelling"
    await batches.take(batch.id, "w", lease_ms=LEASE_MS)
    await end(batches, batch, "w")
    with pytest.raises(Conflict):
        await batches.cancel(batch.id)


async def test_a_list_has_pages(store: Store) -> None:
    batches = Batches(store, CLOCK)
    made = [new_batch() for _ in range(5)]
    for batch in made:
        await batches.create(batch)
        await asyncio.sleep(0.002)
    newest = [batch.id for batch in reversed(made)]
    first = await batches.list(limit=2)
    second = await batches.list(limit=2, after=first.items[-1].id)
    last = await batches.list(limit=2, after=second.items[-1].id)
    assert [batch.id for page in (first, second, last) for batch in page.items] == newest
    assert [page.has_more for page in (first, second, last)] == [True, True, False]
    with pytest.raises(BatchNotFound):
        await batches.list(limit=2, after=new_batch_id())
    await store.redis.delete(FileKeys(store.prefix).batch(made[2].id))  # what its TTL does
    await batches.purge_once()
    assert made[2].id not in [batch.id for batch in (await batches.list(limit=10)).items]
    for batch in made:
        if await batches.take(batch.id, "w", lease_ms=LEASE_MS):
            await end(batches, batch, "w")
