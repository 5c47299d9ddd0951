"""What a tenant pays for in fair queueing: what was computed, and not what was only asked for."""

from __future__ import annotations

import pytest
from queue_calls import END, LEASE, NOW, begin, leave, lose, register, serve_all, submit, take

from paddler.jobs.endings import CANCELLED_FRAME, START_TIMEOUT_FRAME
from paddler.store.client import Store
from paddler.store.results import Cancelled, Disposition, Emission, Outcome
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Usage

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def tag(pool: PoolScripts, tenant: str = "t", request_class: str = "normal") -> float:
    return float(await pool.redis.get(pool.keys.tag(request_class, tenant)))


async def test_what_is_cancelled_before_it_is_served_costs_nothing(pool: PoolScripts) -> None:
    """A hundred of them left their tenant behind everybody else for as long as serving them would have taken."""
    ids = [(await submit(pool, tenant="t", output_tokens=200))[0] for _ in range(100)]
    assert await tag(pool) == 20_000
    for request_id in ids:
        assert await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLED
        await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)
    assert await tag(pool) == 0
    others = [(await submit(pool, tenant="other", output_tokens=100))[0] for _ in range(5)]
    mine, _ = await submit(pool, tenant="t", output_tokens=100)
    await register(pool, "a", slots=1)
    served = await serve_all(pool, "a")
    assert served.index(mine) <= 1
    assert sorted(served) == sorted([*others, mine])
    await leave(pool, "a")


async def test_what_is_cancelled_before_it_is_opened_costs_nothing(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool, tenant="t", weight=2.0, output_tokens=200)
    assert (await tag(pool), await take(pool, "a")) == (100, [(request_id, 1)])
    await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)
    assert await tag(pool) == 0
    await leave(pool, "a")


async def test_what_expires_costs_nothing(pool: PoolScripts) -> None:
    await submit(pool, tenant="t", output_tokens=200, start_timeout_ms=50)
    await submit(pool, tenant="t", output_tokens=30)
    assert await pool.expire(START_TIMEOUT_FRAME, now_ms=NOW + 50) == 1
    assert await tag(pool) == 30
    for request_id in await pool.redis.zrange(pool.keys.age(), 0, -1):
        await pool.cancel(request_id.decode(), CANCELLED_FRAME, now_ms=NOW)


@pytest.mark.parametrize("outcome", Outcome)
async def test_whatever_its_end_a_request_costs_what_was_computed(pool: PoolScripts, outcome: Outcome) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool, tenant="t", output_tokens=500)
    last = Emission(request_id, 1, await begin(pool, "a", request_id, 1), END)
    for _ in range(2):
        placed = await pool.settle("a", last, outcome, Usage(40, 3, 30), now_ms=NOW)
        assert placed.disposition is Disposition.OK
        assert await tag(pool) == 13, "once"
    await leave(pool, "a")


async def test_what_was_begun_and_lost_its_agent_stays_charged(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool, tenant="t", output_tokens=200)
    await begin(pool, "a", request_id, 1)
    await lose(pool, "a", now=NOW + LEASE)
    assert await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLED
    assert await tag(pool) == 200


async def test_a_promoted_request_is_paid_for_where_it_was_promoted_to(pool: PoolScripts) -> None:
    await submit(pool, tenant="t", output_tokens=200)
    late = NOW + 30_000
    await register(pool, "a", slots=1, now=late)
    ((request_id, _),) = await take(pool, "a")
    assert (await tag(pool), await tag(pool, request_class="interactive")) == (200, 200)
    await pool.cancel(request_id, CANCELLED_FRAME, now_ms=late)
    assert (await tag(pool), await tag(pool, request_class="interactive")) == (0, 0)
    await leave(pool, "a")
