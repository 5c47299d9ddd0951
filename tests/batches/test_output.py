"""What counts of a batch's files, whatever happens in the middle of writing them down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch_harness import new_batch

from paddler.batches.batches import Batches, LeaseLost
from paddler.batches.contents import Contents, RedisContents
from paddler.batches.folder import FolderContents
from paddler.batches.records import Batch
from paddler.clock import SystemClock
from paddler.errors import QueueUnavailable
from paddler.store.client import Store
from paddler.store.keys import FileKeys, batch_jobs_key
from workers.maintenance.batch_output import Output
from workers.maintenance.batch_parts import join, joined_ids

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
LEASE_MS = 60_000
DAY_S = 86_400


@pytest.fixture(params=["redis", "folder"])
def contents(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Contents:
    return RedisContents(store) if request.param == "redis" else FolderContents(tmp_path, store.prefix, CLOCK)


async def read(contents: Contents, batch: Batch) -> bytes:
    """The output file as its client gets it."""
    (part,) = await join(contents, batch.output_parts, joined_ids(batch.id)[0], DAY_S)
    return b"".join([piece async for piece in contents.read(part.file_id, part.num_bytes)])


async def taken(batches: Batches, batch: Batch, holder: str, contents: Contents) -> Output:
    found = await batches.take(batch.id, holder, lease_ms=LEASE_MS)
    assert found is not None
    return Output(found, holder, batches, contents, CLOCK)


async def lose_lease(store: Store, batch: Batch) -> None:
    """What its TTL does."""
    await store.redis.delete(FileKeys(store.prefix).holder(batch.id))


async def forget(store: Store, batches: Batches, batch: Batch) -> None:
    """No worker is there to end it."""
    await store.redis.hdel(FileKeys(store.prefix).open_batches(), batch.id)
    await store.redis.delete(batch_jobs_key(store.prefix))


async def test_a_run_that_wakes_too_late_writes_over_nothing(store: Store, contents: Contents) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    late = await taken(batches, batch, "late", contents)
    late.add(9, b"late-9\n", is_error=False)
    await late.flush_once()
    late.add(1, b"late-1-was-held\n", is_error=False)
    await lose_lease(store, batch)
    own = await taken(batches, batch, "own", contents)
    for line in (2, 3, 1):
        own.add(line, b"own-%d\n" % line, is_error=False)
    await own.flush_once()
    with pytest.raises((LeaseLost, QueueUnavailable)):
        await late.flush_once()
    own.add(4, b"own-4\n", is_error=False)
    await own.flush_once()
    assert own.batch.completed == 5
    assert await read(contents, own.batch) == b"late-9\nown-2\nown-3\nown-1\nown-4\n"
    assert await read(contents, own.batch) == b"late-9\nown-2\nown-3\nown-1\nown-4\n", "once more changes nothing"
    await forget(store, batches, batch)


async def test_a_run_ends_when_redis_has_forgotten(store: Store) -> None:
    batches, batch, contents = Batches(store, CLOCK), new_batch(), RedisContents(store)
    keys = FileKeys(store.prefix)
    await batches.create(batch)
    output = await taken(batches, batch, "w", contents)
    output.add(1, b"line-1\n", is_error=False)
    await output.flush_once()
    (part,) = output.batch.output_parts
    names = [keys.batch(batch.id), keys.done(batch.id), keys.chunk(part.file_id, 0)]
    kept = [await store.redis.get(name) for name in names]
    output.add(2, b"line-2\n", is_error=False)
    await output.flush_once()
    for name, value in zip(names, kept, strict=True):
        await store.redis.set(name, value, ex=1000)
    output.add(3, b"line-3\n", is_error=False)
    with pytest.raises(QueueUnavailable, match="forgotten"):
        await output.flush_once()
    found = await batches.get(batch.id)
    assert (found.completed, await batches.done_lines(batch.id)) == (1, bytes([0b1000_0000]))
    assert await read(contents, found) == b"line-1\n"
    await forget(store, batches, batch)


@pytest.mark.parametrize("point", ["before the write", "after the write", "after the change"])
async def test_a_run_dies_in_a_flush(store: Store, contents: Contents, point: str) -> None:
    """Each line is in the file once, whether it was counted or is done again."""
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    first = await taken(batches, batch, "first", contents)
    first.add(1, b"one\n", is_error=False)
    await first.flush_once()
    first.add(2, b"two\n", is_error=False)
    with pytest.MonkeyPatch.context() as patch:
        owner: Any = batches if point == "after the change" else contents
        name = "change" if point == "after the change" else "write"
        original = getattr(owner, name)

        async def dying(*arguments: Any, **more: Any) -> None:
            if point != "before the write":
                await original(*arguments, **more)
            raise ConnectionError

        patch.setattr(owner, name, dying)
        with pytest.raises(ConnectionError):
            await first.flush_once()
    await lose_lease(store, batch)
    second = await taken(batches, batch, "second", contents)
    done = (await batches.done_lines(batch.id))[0]
    assert done == (0b1100_0000 if point == "after the change" else 0b1000_0000)
    if not done & 0b0100_0000:
        second.add(2, b"two\n", is_error=False)
    second.add(3, b"three\n", is_error=False)
    await second.flush_once()
    assert second.batch.completed == 3
    assert await read(contents, second.batch) == b"one\ntwo\nthree\n"
    await forget(store, batches, batch)
