"""Which agents a request's taker is told of: those that hold more of its beginning. Valkey 9, Redis 7.0."""

from __future__ import annotations

import pytest
from queue_calls import LEASE, NOW, finish, hashes_of, leave, register, submit, take

from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.store.client import Store
from paddler.store.results import Disposition
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Opened, encode_frame

pytestmark = pytest.mark.anyio

PROMPT = "You are a helpful assistant. " * 60


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def holds(pool: PoolScripts, agent: str, num_hashes: int, *, url: str = "given", now: float = NOW) -> None:
    """An agent that takes no request and holds the first hashes of the prompt."""
    told = {"slots": 1, "state": "loading", "kv_url": f"http://{agent}:1" if url == "given" else url}
    await pool.register(agent, lease_ms=LEASE, model="m", seen_s=1, snapshot=told, now_ms=now)
    await pool.hold(agent, ttl_ms=300_000, added=hashes_of(PROMPT)[:num_hashes], now_ms=now)


async def peers(
    pool: PoolScripts, agent: str, request_id: str, attempt: int = 1, *, most: int = 3, now: float = NOW
) -> tuple[str, ...]:
    frame = encode_frame(Opened("a", attempt))
    opened = await pool.open(agent, request_id, attempt, frame, most_peers=most, now_ms=now)
    assert opened.disposition is Disposition.OK
    assert opened.payload == b"payload"
    return opened.peers


async def test_the_longest_first_and_nobody_who_holds_less(pool: PoolScripts) -> None:
    await holds(pool, "short", 1)
    await holds(pool, "long", 5)
    await holds(pool, "middle", 3)
    await holds(pool, "silent", 6, url="")
    await register(pool, "taker", slots=1)
    request_id, _ = await submit(pool, prompt=PROMPT)
    later = NOW + 3_000
    await pool.claim("taker", now_ms=later)
    assert await take(pool, "taker") == [(request_id, 1)]
    assert await peers(pool, "taker", request_id, now=later) == ("http://long:1", "http://middle:1", "http://short:1")
    assert await peers(pool, "taker", request_id, most=1, now=later) == ("http://long:1",)
    assert await peers(pool, "taker", request_id, most=0, now=later) == ()
    await pool.hold("taker", ttl_ms=300_000, added=hashes_of(PROMPT)[:3], now_ms=later)
    assert await peers(pool, "taker", request_id, now=later) == ("http://long:1",), "more than it has itself"
    await finish(pool, "taker", request_id, 1, now=later)
    await leave(pool, "taker", "short", "long", "middle", "silent")


async def test_whoever_is_lost_or_leaves(pool: PoolScripts) -> None:
    """One that leaves still gives; one whose lease is over does not."""
    await holds(pool, "lost", 5, now=NOW - LEASE)
    await holds(pool, "leaving", 4)
    await pool.drain("leaving", now_ms=NOW)
    await register(pool, "taker", slots=1)
    request_id, _ = await submit(pool, prompt=PROMPT)
    later = NOW + 3_000
    await pool.claim("taker", now_ms=later)
    await take(pool, "taker")
    assert await peers(pool, "taker", request_id, now=later) == ("http://leaving:1",)
    await finish(pool, "taker", request_id, 1, now=later)
    await leave(pool, "taker", "lost", "leaving")


async def test_who_hands_over_comes_first_for_half_a_minute(pool: PoolScripts) -> None:
    await register(pool, "first", slots=1)
    await pool.renew("first", lease_ms=LEASE, snapshot={"kv_url": "http://first:1"}, now_ms=NOW)
    request_id, _ = await submit(pool, prompt=PROMPT)
    await take(pool, "first")
    assert await peers(pool, "first", request_id) == ()
    await reap(pool, "first", is_leaving=True, now=NOW)
    await holds(pool, "other", 2)
    await register(pool, "taker", slots=1)
    await pool.claim("taker", now_ms=NOW + 3_000)
    ((_, attempt),) = await take(pool, "taker")
    opened = await peers(pool, "taker", request_id, attempt, now=NOW + 3_000)
    assert opened == ("http://first:1", "http://other:1")
    await pool.renew("other", lease_ms=60_000, now_ms=NOW + 3_000)
    assert await peers(pool, "taker", request_id, attempt, now=NOW + 30_001) == ("http://other:1",)
    await finish(pool, "taker", request_id, attempt, now=NOW + 3_000)
    await leave(pool, "taker", "other")


async def test_who_handed_over_is_not_told_of_any_more_once_the_next_is_lost(pool: PoolScripts) -> None:
    await register(pool, "first", slots=1)
    await pool.renew("first", lease_ms=LEASE, snapshot={"kv_url": "http://first:1"}, now_ms=NOW)
    request_id, _ = await submit(pool, prompt=PROMPT)
    await take(pool, "first")
    await reap(pool, "first", is_leaving=True, now=NOW)
    await register(pool, "second", slots=1)
    ((_, attempt),) = await take(pool, "second")
    assert await peers(pool, "second", request_id, attempt) == ("http://first:1",)
    lost = NOW + LEASE + 1
    await reap(pool, "second", is_leaving=False, now=lost)
    await register(pool, "third", slots=1, now=lost)
    ((_, attempt),) = await take(pool, "third")
    assert await peers(pool, "third", request_id, attempt, now=lost) == ()
    await finish(pool, "third", request_id, attempt, now=lost)
    await leave(pool, "third")


async def reap(pool: PoolScripts, agent: str, *, is_leaving: bool, now: float) -> None:
    frames = {"dead_frame": DEAD_FRAME, "cancel_frame": CANCELLED_FRAME}
    assert await pool.reap(agent, max_deaths=3, **frames, is_leaving=is_leaving, now_ms=now)
