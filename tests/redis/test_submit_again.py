"""Submitting again: by an idempotency key, and what Redis has forgotten."""

from __future__ import annotations

import pytest
from queue_calls import LEASE, NOW, finish, leave, lose, register, submit, take

from paddler.jobs.endings import CANCELLED_FRAME, START_TIMEOUT_FRAME
from paddler.store.client import Store
from paddler.store.results import Admission, Cancelled, Disposition, Emission, Repair
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Opened, Tokens, encode_frame

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def test_a_key_stands_for_one_body(pool: PoolScripts) -> None:
    first, _ = await submit(pool, idempotency_key="k", fingerprint="a", label=b"kept")
    assert await pool.redis.hget(pool.keys.request(first), "label") == b"kept"
    for fingerprint, expected in (("a", Admission.DUPLICATE), ("b", Admission.MISMATCH)):
        answer = (await submit(pool, idempotency_key="k", fingerprint=fingerprint))[1]
        assert (answer.admission, answer.request_id) == (expected, first)
    assert await pool.redis.xlen(pool.keys.demand()) == 1
    await register(pool, "a")
    await finish(pool, "a", first, 1)
    answer = (await submit(pool, idempotency_key="k", fingerprint="a"))[1]
    assert (answer.admission, answer.request_id) == (Admission.DUPLICATE, first), "done, and told again"
    await leave(pool, "a")


async def test_a_key_whose_request_was_cancelled_begins_anew(pool: PoolScripts) -> None:
    first, _ = await submit(pool, idempotency_key="k", fingerprint="a")
    assert await pool.cancel(first, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLED
    second, answer = await submit(pool, idempotency_key="k", fingerprint="b")
    assert (answer.admission, answer.request_id) == (Admission.WAITING, second)
    await register(pool, "a", slots=1)
    ((_, attempt),) = await take(pool, "a")
    opened = await pool.open("a", second, attempt, encode_frame(Opened("a", attempt)), now_ms=NOW)
    assert await pool.cancel(second, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLING
    third, answer = await submit(pool, idempotency_key="k", fingerprint="a")
    assert answer.request_id == third, "nor is one that is being cancelled joined"
    assert opened.journal
    await leave(pool, "a")
    for request_id in (second, third):
        await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)


async def test_a_forgotten_request_comes_back_with_its_journal(pool: PoolScripts) -> None:
    """In one step: whoever opens it finds what was forwarded already."""
    journal = encode_frame(Opened("gone", 1)) + encode_frame(Tokens((1, 2), "once upon"))
    await register(pool, "a", slots=1)
    request_id, answer = await submit(pool, journal=journal)
    assert answer.admission is Admission.ASSIGNED
    frame = encode_frame(Opened("a", 1))
    opened = await pool.open("a", request_id, 1, frame, now_ms=NOW)
    assert opened.journal == journal + frame
    again = (await submit(pool, request_id=request_id, journal=journal))[1]
    assert again.admission is Admission.KNOWN
    assert await pool.redis.get(pool.keys.journal(request_id)) == journal + frame
    await finish(pool, "a", request_id, 1)
    await leave(pool, "a")


async def test_what_redis_forgot_to_be_opened_does_not_expire(pool: PoolScripts) -> None:
    """Redis forgot that it was opened, and the agent that goes on with it is lost: it has begun all the same."""
    opened, said = encode_frame(Opened("a", 1)), encode_frame(Tokens((1, 2), "once upon"))
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool, start_timeout_ms=50)
    assert await take(pool, "a") == [(request_id, 1)]
    (placed,) = await pool.emit("a", [Emission(request_id, 1, 0, opened + said)], now_ms=NOW)
    assert placed.disposition is Disposition.OK
    state, deaths = await pool.redis.hmget(pool.keys.request(request_id), "state", "deaths")
    assert (state, deaths) == (b"running", None)
    assert (await lose(pool, "a", now=NOW + LEASE)).num_returned == 1
    assert await pool.redis.hmget(pool.keys.request(request_id), "deaths", "fruitless") == [b"1", None]
    assert await pool.expire(START_TIMEOUT_FRAME, now_ms=NOW + LEASE) == 0
    await register(pool, "b", slots=1, now=NOW + LEASE)
    await finish(pool, "b", request_id, 3, now=NOW + LEASE)
    await leave(pool, "b")


async def test_what_redis_forgot_to_be_given_does_not_expire(pool: PoolScripts) -> None:
    """Redis forgot the claim and all that followed: a balancer writes back what it has forwarded."""
    request_id, _ = await submit(pool, start_timeout_ms=50)
    frames = encode_frame(Opened("gone", 1)) + encode_frame(Tokens((1, 2), "once upon"))
    assert await pool.repair(request_id, 0, frames, now_ms=NOW) == (Repair.OK, len(frames))
    assert await pool.expire(START_TIMEOUT_FRAME, now_ms=NOW + 60) == 0
    await register(pool, "a", slots=1, now=NOW + 60)
    await finish(pool, "a", request_id, 1, now=NOW + 60)
    await leave(pool, "a")
