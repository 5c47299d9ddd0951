"""Dead letters: kept for a day, requeued, dropped; and requests nobody follows. Valkey 9 and Redis 7.0."""

from __future__ import annotations

import pytest
from queue_calls import LEASE, NOW, begin, finish, leave, register, submit, take

from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.store.client import Store
from paddler.store.results import Disposition, Emission, Requeued
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Failed, Finished, Opened, decode_frames

pytestmark = pytest.mark.anyio

DAY_S = 86_400


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def die(pool: PoolScripts) -> str:
    """A request that killed three agents."""
    request_id, _ = await submit(pool, tenant="t")
    await lose_agents(pool, request_id)
    return request_id


async def lose_agents(pool: PoolScripts, request_id: str) -> None:
    for number in range(3):
        await register(pool, f"a{number}", slots=1)
        ((taken, attempt),) = await take(pool, f"a{number}")
        assert taken == request_id
        await begin(pool, f"a{number}", request_id, attempt)
        await pool.reap(
            f"a{number}", max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME, now_ms=NOW + LEASE + 1
        )


async def letters(pool: PoolScripts) -> list[str]:
    return [fields[b"id"].decode() for _, fields in await pool.redis.xrange(pool.keys.dead())]


async def counter(pool: PoolScripts, name: str) -> int:
    return int(await pool.redis.hget(pool.keys.counters(), name) or 0)


async def test_a_dead_letter_keeps_its_request_for_a_day(pool: PoolScripts) -> None:
    dead = await die(pool)
    assert await letters(pool) == [dead]
    for key in (pool.keys.request(dead), pool.keys.payload(dead)):
        assert DAY_S - 60 < await pool.redis.ttl(key) <= DAY_S
    assert await pool.redis.ttl(pool.keys.journal(dead)) <= 600
    assert [await counter(pool, name) for name in ("dead", "deaths", "reaped", "handed_over")] == [1, 3, 3, 2]


async def test_a_requeued_letter_lives_again_under_its_id(pool: PoolScripts) -> None:
    dead = await die(pool)
    assert await pool.requeue(dead, now_ms=NOW + LEASE) is Requeued.REQUEUED
    assert await pool.requeue(dead, now_ms=NOW + LEASE) is Requeued.REQUEUED, "repeated, it changes nothing"
    assert await letters(pool) == []
    assert (await pool.redis.xlen(pool.keys.demand()), await counter(pool, "requeued")) == (1, 1)
    assert await pool.redis.exists(pool.keys.journal(dead)) == 0
    assert await pool.redis.hmget(pool.keys.request(dead), "opens", "deaths") == [None, None]
    assert await pool.redis.ttl(pool.keys.payload(dead)) == -1
    late = Emission(dead, 5, 0, b"of its former life")
    assert (await pool.emit("a2", [late], now_ms=NOW))[0].disposition is Disposition.FENCED

    assert await pool.orphan([dead], grace_ms=0, inbox_prefix="inbox", now_ms=NOW + LEASE) == []
    assert await pool.orphan([dead], grace_ms=0, inbox_prefix="inbox", now_ms=NOW + LEASE) == [], "in the background"
    await register(pool, "b", slots=2)
    ((taken, attempt),) = await take(pool, "b")
    assert taken == dead
    await finish(pool, "b", dead, attempt)
    opened, end = decode_frames(await pool.redis.get(pool.keys.journal(dead)))
    assert isinstance(opened, Opened)
    assert isinstance(end, Finished)
    assert await pool.redis.ttl(pool.keys.payload(dead)) <= 600
    await leave(pool, "b")


async def test_it_may_die_again_with_all_its_attempts(pool: PoolScripts) -> None:
    dead = await die(pool)
    await pool.requeue(dead, now_ms=NOW)
    await lose_agents(pool, dead)
    assert await letters(pool) == [dead]
    *_, end = decode_frames(await pool.redis.get(pool.keys.journal(dead)))
    assert isinstance(end, Failed)
    assert await pool.requeue(dead, now_ms=NOW) is Requeued.REQUEUED
    await pool.cancel(dead, CANCELLED_FRAME, now_ms=NOW)


async def test_what_cannot_be_requeued(pool: PoolScripts) -> None:
    waiting, _ = await submit(pool)
    assert await pool.requeue(waiting, now_ms=NOW) is Requeued.NOT_DEAD
    assert await pool.requeue("unknown", now_ms=NOW) is Requeued.NOT_DEAD
    await pool.cancel(waiting, CANCELLED_FRAME, now_ms=NOW)
    dead = await die(pool)
    await pool.redis.delete(pool.keys.payload(dead))  # a day later
    assert await pool.requeue(dead, now_ms=NOW) is Requeued.GONE
    assert await letters(pool) == [dead]
    assert await pool.redis.xlen(pool.keys.demand()) == 0


async def test_a_dropped_letter_is_forgotten(pool: PoolScripts) -> None:
    dead = await die(pool)
    assert await pool.drop(dead)
    assert not await pool.drop(dead)
    assert await letters(pool) == []
    assert await pool.redis.exists(pool.keys.payload(dead)) == 0
    assert await pool.redis.ttl(pool.keys.request(dead)) <= 600
    assert await pool.requeue(dead, now_ms=NOW) is Requeued.NOT_DEAD


async def test_an_orphan_is_named_after_the_grace_time(pool: PoolScripts) -> None:
    followed, _ = await submit(pool, inbox="inbox:here")
    lost, _ = await submit(pool, inbox="inbox:gone")
    batch, _ = await submit(pool, inbox="inbox:gone", is_background=True)
    await pool.follow("here", lease_ms=1000, now_ms=NOW)
    await pool.follow("gone", lease_ms=10, now_ms=NOW)
    ids = [followed, lost, batch, "unknown"]

    async def orphans(now: float) -> list[str]:
        return await pool.orphan(ids, grace_ms=300, inbox_prefix="inbox:", now_ms=now)

    assert await orphans(NOW + 5) == [], "both are followed"
    assert await orphans(NOW + 10) == [], "the grace time begins"
    assert await orphans(NOW + 309) == []
    assert await orphans(NOW + 310) == [lost]
    assert await orphans(NOW + 311) == [lost]
    assert await counter(pool, "orphaned") == 1
    await pool.follow("gone", lease_ms=1000, now_ms=NOW + 312)
    assert await orphans(NOW + 313) == [], "its balancer was only out of touch, and listens as before"
    for request_id in (followed, lost, batch):
        await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)
