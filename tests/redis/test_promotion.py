"""Promotion by age: nothing starves, and nobody is starved by it. Valkey 9 and Redis 7.0."""

from __future__ import annotations

import pytest
from queue_calls import NOW, leave, random_source, register, serve_all, submit

from paddler.store.client import Store
from paddler.store.scripts import PoolScripts

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def test_classes_in_order_and_promotion_by_age(pool: PoolScripts) -> None:
    batch, _ = await submit(pool, request_class="batch")
    old, _ = await submit(pool, request_class="normal")
    young, _ = await submit(pool, request_class="normal", now=NOW + 29_000, tenant="b", output_tokens=2)
    quick, _ = await submit(pool, request_class="interactive", now=NOW + 29_000, tenant="c", output_tokens=900)
    await register(pool, "a", slots=1, now=NOW + 30_000)
    assert await serve_all(pool, "a", now=NOW + 30_000) == [old, quick, young, batch]
    assert await pool.redis.xlen(pool.keys.demand_batch()) == 0
    await leave(pool, "a")


async def test_a_promoted_request_returns_to_the_place_it_was_promoted_to(pool: PoolScripts) -> None:
    batch, _ = await submit(pool, request_class="batch", output_tokens=9_000)
    late = NOW + 120_000
    await register(pool, "a", slots=1, now=late)
    place = await pool.redis.hget(pool.keys.request(batch), "score")
    await leave(pool, "a")
    assert await pool.redis.zscore(pool.keys.order("normal"), batch) == float(place) == 9_000
    await register(pool, "b", slots=1, now=late)
    assert await serve_all(pool, "b", now=late) == [batch]
    assert float(await pool.redis.get(pool.keys.tag("normal", "anonymous"))) == 9, "charged where it was served"
    await leave(pool, "b")


async def test_batch_takes_120_s_to_normal_and_30_more_to_interactive(pool: PoolScripts) -> None:
    batch, _ = await submit(pool, request_class="batch")
    await register(pool, "a", slots=1, now=NOW + 119_999)
    assert await pool.redis.hget(pool.keys.request(batch), "queue") == b"batch"
    await leave(pool, "a")
    for after, queue in ((120_000, b"normal"), (149_999, b"normal"), (150_000, b"interactive")):
        await register(pool, "a", slots=1, now=NOW + after)
        assert await pool.redis.hget(pool.keys.request(batch), "queue") == queue
        await leave(pool, "a")
    await register(pool, "a", slots=1, now=NOW + 150_000)
    assert await serve_all(pool, "a", now=NOW + 150_000) == [batch]
    await leave(pool, "a")


@pytest.mark.parametrize("flood_class", ["normal", "batch"])
@pytest.mark.parametrize("tenant", ["flood", "modest"])
async def test_an_old_flood_does_not_delay_a_single_one(pool: PoolScripts, flood_class: str, tenant: str) -> None:
    """It was served behind all of the flood, which had been promoted before it: also where it is of that tenant."""
    for number in range(100):
        await submit(pool, tenant="flood", request_class=flood_class, output_tokens=100, now=NOW + number)
    late = NOW + 300_000
    first_class = "interactive" if tenant == "flood" else flood_class
    single, _ = await submit(pool, tenant=tenant, request_class=first_class, output_tokens=100, now=late)
    await register(pool, "a", slots=1, now=late)
    assert (await serve_all(pool, "a", now=late)).index(single) <= 2, "one promoted, and one of its own class"
    await leave(pool, "a")


async def test_promotion_starves_nobody_in_any_mixture(pool: PoolScripts) -> None:
    """One tenant floods every class, all of it old; another tenant's single request comes at any moment, any class."""
    chance = random_source()
    for round_ in range(6):
        name = pool.keys.pool + f"-{round_}"
        now, waiting = NOW, 0
        for _ in range(60):
            now += chance.choice((0, 1, 2_000))
            await submit(
                pool, tenant="flood", request_class=chance.choice(("normal", "batch")), output_tokens=100, now=now
            )
            waiting += 1
        now += chance.choice((31_000, 121_000, 500_000))
        await register(pool, name, slots=1, now=now)
        single, _ = await submit(
            pool, tenant=f"single-{round_}", request_class="normal", output_tokens=chance.randint(1, 100), now=now
        )
        served = await serve_all(pool, name, now=now)
        assert len(served) == waiting + 1
        assert served.index(single) <= 3, "the running one, one promoted, one of fair queueing, one for its age"
        await leave(pool, name)


async def test_what_is_starved_by_a_higher_class_gets_its_tenants_share_of_it(pool: PoolScripts) -> None:
    """Fresh interactive requests without end, and a normal one that has waited for 30 s."""
    for number in range(40):
        await submit(pool, tenant=f"t{number % 4}", request_class="interactive", output_tokens=100, now=NOW + number)
    normal = [(await submit(pool, tenant="slow", output_tokens=100, now=NOW - 40_000 + n))[0] for n in range(5)]
    await register(pool, "a", slots=1, now=NOW + 50)
    served = await serve_all(pool, "a", now=NOW + 50)
    places = [served.index(one) for one in normal]
    assert places == sorted(places)
    assert places[-1] <= 30, "one of five tenants, and now and then for their age"
    await leave(pool, "a")
