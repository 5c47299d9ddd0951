"""What waits in the foreground and in the background is bounded apart. Valkey 9 and Redis 7.0."""

from __future__ import annotations

from typing import Any

import pytest
from queue_calls import NOW, finish, leave, lose, register, serve_all, submit, take

from paddler.jobs.endings import CANCELLED_FRAME
from paddler.store.client import Store
from paddler.store.results import Admission
from paddler.store.scripts import PoolScripts

pytestmark = pytest.mark.anyio

BACKGROUND: tuple[dict[str, Any], ...] = ({"request_class": "batch"}, {"is_background": True})


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def admission(pool: PoolScripts, **options: Any) -> Admission:
    return (await submit(pool, **options))[1].admission


async def cancel_all(pool: PoolScripts) -> None:
    for request_id in await pool.redis.zrange(pool.keys.age(), 0, -1):
        await pool.cancel(request_id.decode(), CANCELLED_FRAME, now_ms=NOW)


@pytest.mark.parametrize("options", BACKGROUND)
async def test_the_background_does_not_fill_the_buffer(pool: PoolScripts, options: dict[str, Any]) -> None:
    """Thirty background requests of class `normal` made every other one `full`."""
    for _ in range(3):
        assert await admission(pool, **options, max_waiting=3) is Admission.WAITING
    answer = (await submit(pool, **options, max_waiting=3))[1]
    assert (answer.admission, answer.number) == (Admission.FULL, 3)
    for _ in range(2):
        assert await admission(pool, max_waiting=2) is Admission.WAITING
    assert await admission(pool, max_waiting=2) is Admission.FULL
    assert await admission(pool, **options, max_waiting=4) is Admission.WAITING, "nor the other way round"
    await cancel_all(pool)
    assert await pool.redis.exists(pool.keys.aside()) == 0


async def test_a_promoted_batch_request_stays_on_its_side(pool: PoolScripts) -> None:
    late = NOW + 120_000
    for _ in range(2):
        await submit(pool, request_class="batch")
    await register(pool, "a", slots=1, now=late)
    assert await pool.redis.zcard(pool.keys.order("batch")) == 1
    await pool.drain("a", now_ms=late)
    assert await pool.redis.zcard(pool.keys.order("normal")) == 1, "it came back to where it had been promoted"
    assert await admission(pool, max_waiting=1, now=late) is Admission.WAITING
    assert await admission(pool, request_class="batch", max_waiting=2, now=late) is Admission.FULL
    await leave(pool, "a")
    await cancel_all(pool)


@pytest.mark.parametrize("options", BACKGROUND)
async def test_the_background_takes_nothing_of_a_tenants_share(pool: PoolScripts, options: dict[str, Any]) -> None:
    assert await admission(pool, tenant="t", tenant_max_waiting=1, **options) is Admission.WAITING
    assert await admission(pool, tenant="t", tenant_max_waiting=1) is Admission.WAITING
    assert await admission(pool, tenant="t", tenant_max_waiting=1) is Admission.TENANT_FULL
    assert await admission(pool, tenant="t", tenant_max_waiting=1, **options) is Admission.TENANT_FULL
    await cancel_all(pool)


@pytest.mark.parametrize("options", BACKGROUND)
async def test_the_background_is_no_wait_for_the_foreground(pool: PoolScripts, options: dict[str, Any]) -> None:
    """One batch of a million tokens made every interactive request `slow`."""
    await submit(pool, output_tokens=1_000_000, **options)
    assert await admission(pool, output_tokens=500, rate=100.0, max_wait_ms=4_000) is Admission.WAITING
    answer = (await submit(pool, rate=100.0, max_wait_ms=4_000))[1]
    assert answer.admission is Admission.SLOW
    assert 5_000 <= answer.number <= 5_010
    await cancel_all(pool)


async def test_a_request_returns_to_its_side(pool: PoolScripts) -> None:
    await register(pool, "a", slots=2)
    front, _ = await submit(pool, output_tokens=10)
    aside, _ = await submit(pool, output_tokens=70, is_background=True)
    await lose(pool, "a", now=NOW + 10_000)
    keys = pool.keys
    assert await pool.redis.mget(keys.backlog("foreground"), keys.backlog("background")) == [b"10", b"70"]
    assert await pool.redis.smembers(keys.aside()) == {aside.encode()}
    assert await pool.redis.smembers(keys.queued("foreground", "anonymous")) == {front.encode()}
    await register(pool, "b", slots=1)
    ((request_id, attempt),) = await take(pool, "b")
    await finish(pool, "b", request_id, attempt)
    await serve_all(pool, "b")
    await leave(pool, "b")
    assert await pool.redis.mget(keys.backlog("foreground"), keys.backlog("background")) == [b"0", b"0"]
