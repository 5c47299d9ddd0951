"""What must not cost a batch: workers that cannot read it, storage that fails for a while, files that are gone."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batch_harness import (
    RunningWorker,
    batch_worker,
    chat_line,
    counts,
    new_batch,
    read_file,
    submit,
    until_done,
    until_ended,
)
from fleet_harness import Fleet
from openai import AsyncOpenAI

from paddler.batches.batches import MAX_REST_S, Batches
from paddler.batches.contents import RedisContents
from paddler.batches.files import Files
from paddler.clock import SystemClock
from paddler.errors import StorageFull
from paddler.store.client import Store
from paddler.store.keys import FileKeys, batch_jobs_key
from paddler.testing.waiting import wait_until
from workers.maintenance import batch_lines

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
DAY_S = 86_400


async def test_a_worker_that_cannot_read_the_file_leaves_it_to_others(
    client: AsyncOpenAI, fleet: Fleet, store: Store, tmp_path: Path
) -> None:
    await fleet.agent(slots=4, step_s=0.02)
    made = await submit(client, [chat_line(str(n), f"[[say={n}]]") for n in range(100)])
    async with batch_worker(store.url, store.prefix):
        await until_done(client, made, 10)
    async with batch_worker(store.url, store.prefix, folder=tmp_path):
        await asyncio.sleep(2)
        found = await Batches(store, CLOCK).get(made.id)
        assert (found.status, found.runs) == ("in_progress", 1), "it does not even take it"
        async with batch_worker(store.url, store.prefix):
            assert counts(await until_ended(client, made)) == (100, 100, 0)


async def test_a_full_disk_costs_no_line(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=4, step_s=0.02)
    made = await submit(client, [chat_line(str(n), f"[[say={n}]]") for n in range(100)])
    async with batch_worker(store.url, store.prefix) as worker:
        await until_done(client, made, 10)
        contents: Any = worker.runner.files.contents
        num_tries = 0

        async def full(*_: Any) -> None:
            nonlocal num_tries
            num_tries += 1
            raise OSError(errno.ENOSPC, "No space left on device")

        write, contents.write = contents.write, full

        async def tried_thrice() -> bool:
            return num_tries >= 3

        await wait_until(tried_thrice, timeout_s=20, what="three runs have failed")
        found = await Batches(store, CLOCK).get(made.id)
        assert found.fruitless <= 1, "trouble of the disk is not held against the batch"
        contents.write = write
        batch = await until_ended(client, made)
    assert (batch.status, counts(batch)) == ("completed", (100, 100, 0))
    found_lines = await read_file(client, batch.output_file_id)
    assert Counter(one["custom_id"] for one in found_lines) == Counter(map(str, range(100)))


async def test_rests_grow(store: Store) -> None:
    batches, batch = Batches(store, CLOCK), new_batch()
    await batches.create(batch)
    rests: list[int] = []
    for run in range(8):
        assert await batches.take(batch.id, f"w{run}", lease_ms=5000) is not None
        rests.append(await batches.rest(batch.id, f"w{run}", is_fruitless=run % 2 == 0))
        assert await batches.take(batch.id, "early", lease_ms=5000) is None
        await store.redis.delete(FileKeys(store.prefix).holder(batch.id))  # what its TTL does
    assert rests == [1, 2, 4, 8, 16, 32, MAX_REST_S, MAX_REST_S]
    assert (await batches.get(batch.id)).fruitless == 4
    await store.redis.hdel(FileKeys(store.prefix).open_batches(), batch.id)
    await store.redis.delete(batch_jobs_key(store.prefix))


async def test_what_a_lost_worker_began_is_stopped(client: AsyncOpenAI, fleet: Fleet, store: Store) -> None:
    await fleet.agent(slots=4, step_s=0.01)
    demand = store.pool("default").keys.demand_batch()
    lines = [chat_line("quick", "[[tokens=60]]"), *(chat_line(f"s{n}", "[[tokens=100000]]") for n in range(9))]

    async def accepted() -> int:
        return int(await store.redis.hget(store.pool("default").keys.counters(), "accepted") or 0)

    async def have_begun() -> bool:
        return await accepted() >= 4

    async def has_one_ended() -> bool:
        return await accepted() > await store.redis.xlen(demand)

    made = await submit(client, lines)
    worker = RunningWorker(store.url, store.prefix)
    await wait_until(have_begun, what="lines are under way")
    await worker.kill()
    await wait_until(has_one_ended, what="the quick one ends, and nobody has written it down")
    await client.batches.cancel(made.id)
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, made)
    assert (batch.status, counts(batch)) == ("cancelled", (10, 1, 9))
    assert [one["custom_id"] for one in await read_file(client, batch.output_file_id)] == ["quick"]
    assert await store.redis.xlen(demand) == 0


async def test_large_lines_go_one_by_one(
    client: AsyncOpenAI, fleet: Fleet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lines, "MAX_BYTES", 1)
    await fleet.agent(slots=4, step_s=0.005)
    made = await submit(client, [chat_line(str(n), "[[tokens=10]]") for n in range(6)])
    accepted: list[int] = []
    async with batch_worker(store.url, store.prefix):
        while (batch := await client.batches.retrieve(made.id)).status != "completed":
            accepted.append(await store.redis.xlen(store.pool("default").keys.demand_batch()))
            await asyncio.sleep(0.01)
    assert max(accepted) <= 1
    assert counts(batch) == (6, 6, 0)


async def test_a_file_that_is_gone_ends_a_batch_with_what_it_has(
    client: AsyncOpenAI, fleet: Fleet, store: Store
) -> None:
    await fleet.agent(slots=4, step_s=0.02)
    made = await submit(client, [chat_line(str(n), f"[[say={n}]]") for n in range(100)])
    async with batch_worker(store.url, store.prefix):
        await until_done(client, made, 20)
    await store.redis.delete(FileKeys(store.prefix).file(made.input_file_id))
    async with batch_worker(store.url, store.prefix):
        batch = await until_ended(client, made)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [error.code for error in batch.errors.data or []] == ["file_not_found"]
    assert len(await read_file(client, batch.output_file_id)) == counts(batch)[1] >= 20


async def test_an_input_is_kept_to_be_halted(client: AsyncOpenAI, store: Store) -> None:
    file = await client.files.create(
        file=("a", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 90_000}
    )
    keys = FileKeys(store.prefix)
    made = await client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    for key in (keys.file(file.id), keys.chunk(file.id, 0)):
        assert 2 * DAY_S - 100 <= await store.redis.ttl(key) <= 2 * DAY_S
    async with batch_worker(store.url, store.prefix):
        await until_ended(client, made)


async def test_uploads_side_by_side_have_one_bound(store: Store) -> None:
    files = Files(store, RedisContents(store), CLOCK, max_stored=1000)
    first, second = await files.begin(), await files.begin()
    for upload in (first, second):
        await upload.write(b"x" * 600)
    kept = await files.finish(first, filename="a", purpose="batch", lifetime_s=3600)
    with pytest.raises(StorageFull):
        await files.finish(second, filename="b", purpose="batch", lifetime_s=3600)
    await files.delete(kept.id)
