"""Submitting again: by an idempotency key, and what Redis has forgotten."""

from __future__ import annotations

import pytest
from queue_calls import NOW, finish, leave, register, submit, take

from paddler.jobs.endings import CANCELLED_FRAME
from paddler.store.client import Store
from paddler.store.results import Admission, Cancelled
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
