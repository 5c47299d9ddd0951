"""Which request an agent gets: affinity, stealing, fairness, classes, bounds. Valkey 9 and Redis 7.0."""

from __future__ import annotations

import pytest
from queue_calls import NOW, begin, finish, hold, leave, register, serve_all, submit, take

from paddler.store.client import Store
from paddler.store.results import Admission, Disposition
from paddler.store.scripts import PoolScripts

pytestmark = pytest.mark.anyio

SYSTEM = "You are a helpful assistant. " * 40
OTHER = "Translate what follows into French. " * 40


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def test_a_conversation_returns_to_the_agent_that_holds_it(pool: PoolScripts) -> None:
    await register(pool, "busy", slots=4)
    await register(pool, "holder", slots=2)
    await hold(pool, "holder", SYSTEM)
    request_id, answer = await submit(pool, prompt=SYSTEM + "And now?")
    assert answer.admission is Admission.ASSIGNED
    assert await take(pool, "holder") == [(request_id, 1)], "although the other one is freer"
    await finish(pool, "holder", request_id, 1)
    await leave(pool, "busy", "holder")


async def test_less_than_a_tenth_of_the_prompt_is_no_match(pool: PoolScripts) -> None:
    await register(pool, "freest", slots=4)
    await register(pool, "holder", slots=2)
    await hold(pool, "holder", "short beginning " * 20)
    request_id, _ = await submit(pool, prompt="short beginning " * 20 + "x" * 10_000)
    assert await take(pool, "freest") == [(request_id, 1)]
    await finish(pool, "freest", request_id, 1)
    await leave(pool, "freest", "holder")


async def test_a_request_waits_for_its_busy_holder_as_long_as_that_saves(pool: PoolScripts) -> None:
    await register(pool, "holder", slots=1, prefill=1000)
    await hold(pool, "holder", SYSTEM)
    first, _ = await submit(pool, prompt=SYSTEM)
    await register(pool, "thief", slots=1, prefill=1000)
    second, answer = await submit(pool, prompt=SYSTEM + "next turn")
    assert answer.admission is Admission.WAITING
    saved_ms = len(SYSTEM) // 256 * 256
    claimed = await pool.claim("thief", now_ms=NOW)
    assert claimed.num_given == 0
    assert saved_ms <= claimed.steal_after_ms <= len(SYSTEM) + 9
    assert (await pool.claim("thief", now_ms=NOW + claimed.steal_after_ms - 1)).num_given == 0
    assert (await pool.claim("thief", now_ms=NOW + claimed.steal_after_ms)).num_given == 1
    assert await take(pool, "thief") == [(second, 1)]
    await finish(pool, "thief", second, 1)
    await finish(pool, "holder", first, 1)
    await leave(pool, "holder", "thief")


async def test_a_freed_holder_takes_its_own_before_older_cold_ones(pool: PoolScripts) -> None:
    await register(pool, "holder", slots=1)
    await hold(pool, "holder", SYSTEM)
    running, _ = await submit(pool, prompt=SYSTEM)
    cold, _ = await submit(pool, prompt=OTHER)
    own, _ = await submit(pool, prompt=SYSTEM + "mine")
    await take(pool, "holder")
    await finish(pool, "holder", running, 1)
    assert await take(pool, "holder") == [(own, 1)]
    await finish(pool, "holder", own, 1)
    assert await serve_all(pool, "holder") == [cold]
    await leave(pool, "holder")


async def test_every_eighth_claim_takes_the_oldest(pool: PoolScripts) -> None:
    await register(pool, "holder", slots=1)
    await hold(pool, "holder", SYSTEM)
    blocker, _ = await submit(pool, prompt=SYSTEM)
    cold, _ = await submit(pool, prompt=OTHER, now=NOW + 1)
    owns = [(await submit(pool, prompt=SYSTEM + str(n), now=NOW + 2 + n))[0] for n in range(9)]
    served = await serve_all(pool, "holder")
    assert served[0] == blocker
    assert served.index(cold) == 7, "the eighth claim"
    assert sorted(served) == sorted([blocker, cold, *owns])
    await leave(pool, "holder")


async def test_a_request_whose_holders_are_all_dead_is_cold(pool: PoolScripts) -> None:
    await register(pool, "holder", slots=1)
    await hold(pool, "holder", SYSTEM)
    late = NOW + 5_001
    await register(pool, "other", slots=1, now=late)
    request_id, answer = await submit(pool, prompt=SYSTEM, now=late)
    assert answer.admission is Admission.ASSIGNED
    assert await take(pool, "other") == [(request_id, 1)]
    await finish(pool, "other", request_id, 1, now=late)
    await leave(pool, "holder", "other")


async def test_reaping_forgets_what_the_agent_held(pool: PoolScripts) -> None:
    await register(pool, "holder")
    await hold(pool, "holder", SYSTEM)
    await leave(pool, "holder")
    assert [key async for key in pool.redis.scan_iter(f"{pool.keys.base}:hold*")] == []
    assert [key async for key in pool.redis.scan_iter(f"{pool.keys.base}:held*")] == []


async def test_a_hint_breaks_ties_and_sticks(pool: PoolScripts) -> None:
    agents = [f"a{n}" for n in range(8)]
    for agent in agents:
        await register(pool, agent, slots=1)
    chosen: set[str] = set()
    for turn in range(6):
        request_id, _ = await submit(pool, prompt=f"{turn} " * 300, hint="conversation-7")
        (where,) = [agent for agent in agents if await take(pool, agent)]
        chosen.add(where)
        await finish(pool, where, request_id, 1)
    assert len(chosen) == 1
    await leave(pool, *agents)


async def test_a_tenant_with_many_waiting_does_not_delay_another_ones_single(pool: PoolScripts) -> None:
    many = [(await submit(pool, tenant="greedy", output_tokens=100, now=NOW + n))[0] for n in range(200)]
    single, _ = await submit(pool, tenant="modest", output_tokens=100, now=NOW + 200)
    await register(pool, "a", slots=1)
    served = await serve_all(pool, "a")
    assert served.index(single) <= 2
    assert sorted(served) == sorted([*many, single])
    assert [one for one in served if one != single] == many, "in order within a tenant"
    await leave(pool, "a")


async def test_weights_share_in_proportion(pool: PoolScripts) -> None:
    for _ in range(60):
        await submit(pool, tenant="heavy", weight=3.0, output_tokens=100)
        await submit(pool, tenant="light", weight=1.0, output_tokens=100)
    await register(pool, "a", slots=1)
    first = (await serve_all(pool, "a"))[:40]
    tenants = [await pool.redis.hget(pool.keys.request(request_id), "tenant") for request_id in first]
    assert 28 <= tenants.count(b"heavy") <= 32
    await leave(pool, "a")


async def test_the_real_cost_corrects_the_estimate(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool, tenant="t", prompt_tokens=100, output_tokens=400)
    assert float(await pool.redis.get(pool.keys.tag("t"))) == 500
    await finish(pool, "a", request_id, 1)
    assert float(await pool.redis.get(pool.keys.tag("t"))) == 9, "7 prompt and 2 output tokens"
    await leave(pool, "a")


async def test_classes_in_order_and_promotion_by_age(pool: PoolScripts) -> None:
    batch, _ = await submit(pool, request_class="batch")
    old, _ = await submit(pool, request_class="normal")
    young, _ = await submit(pool, request_class="normal", now=NOW + 29_000, tenant="b")
    quick, _ = await submit(pool, request_class="interactive", now=NOW + 29_000, tenant="c", output_tokens=900)
    await register(pool, "a", slots=1, now=NOW + 30_000)
    assert await serve_all(pool, "a", now=NOW + 30_000) == [old, quick, young, batch]
    assert await pool.redis.xlen(pool.keys.demand_batch()) == 0
    await leave(pool, "a")


async def test_a_tenants_share_and_the_estimated_wait_bound_the_buffer(pool: PoolScripts) -> None:
    first, _ = await submit(pool, tenant="t", output_tokens=1000, tenant_max_waiting=1)
    assert (await submit(pool, tenant="t", tenant_max_waiting=1))[1].admission is Admission.TENANT_FULL
    second, other = await submit(pool, tenant="u", tenant_max_waiting=1)
    assert other.admission is Admission.WAITING
    slow = (await submit(pool, tenant="v", rate=100.0, max_wait_ms=5_000))[1]
    assert slow.admission is Admission.SLOW
    assert slow.number == 10_010
    assert int(await pool.redis.get(pool.keys.backlog())) == 1001
    await register(pool, "a", slots=1)
    assert await serve_all(pool, "a") == [second, first], "the cheap one of another tenant first"
    assert int(await pool.redis.get(pool.keys.backlog())) == 0
    await leave(pool, "a")


async def test_idempotency_key_leads_to_the_first_request(pool: PoolScripts) -> None:
    first, _ = await submit(pool, tenant="t", idempotency_key="k")
    again = (await submit(pool, tenant="t", idempotency_key="k"))[1]
    assert (again.admission, again.request_id) == (Admission.DUPLICATE, first)
    other, answer = await submit(pool, tenant="u", idempotency_key="k")
    assert answer.admission is Admission.WAITING, "another tenant's key is another key"
    await register(pool, "a", slots=1)
    assert sorted(await serve_all(pool, "a")) == sorted([first, other])
    await leave(pool, "a")


async def test_a_preempted_request_avoids_its_agent_until_something_ended(pool: PoolScripts) -> None:
    await register(pool, "a", slots=2)
    stays, _ = await submit(pool)
    gives_way, _ = await submit(pool)
    await take(pool, "a")
    await begin(pool, "a", stays, 1)
    await begin(pool, "a", gives_way, 1)
    assert await pool.release("a", gives_way, 1, now_ms=NOW) is Disposition.OK
    assert (await pool.claim("a", now_ms=NOW)).num_given == 0
    assert await pool.redis.hget(pool.keys.request(gives_way), "deaths") is None
    await finish(pool, "a", stays, 1)
    assert await take(pool, "a") == [(gives_way, 3)]
    await finish(pool, "a", gives_way, 3)
    await leave(pool, "a")
