"""Which request an agent gets: affinity, stealing, fairness, classes, bounds. Valkey 9 and Redis 7.0."""

from __future__ import annotations

import pytest
from queue_calls import (
    IS_FULL,
    LEASE,
    NOW,
    begin,
    chain_of,
    finish,
    hashes_of,
    hold,
    leave,
    lose,
    register,
    serve_all,
    submit,
    take,
)
from queue_policy import chain_of_packed

from paddler.jobs.endings import CANCELLED_FRAME
from paddler.routing.policy import TENANT_QUANTUM
from paddler.store.client import Store
from paddler.store.results import Admission, Cancelled, Claimed, Disposition
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


async def test_a_request_without_a_chain_does_not_overtake_a_cold_one(pool: PoolScripts) -> None:
    cold, _ = await submit(pool, prompt=SYSTEM)
    short, _ = await submit(pool, prompt="Hi.", prompt_tokens=9_000)
    await register(pool, "a", slots=1)
    assert await serve_all(pool, "a") == [cold, short]
    await leave(pool, "a")


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


async def test_a_flood_that_the_cache_prefers_passes_a_single_one_by_a_bounded_number_of_tokens(
    pool: PoolScripts,
) -> None:
    """Many requests of which the agent holds all but the answer, before one of which nobody holds anything."""
    await register(pool, "a", slots=1)
    await hold(pool, "a", SYSTEM)
    running, _ = await submit(pool, tenant="greedy", prompt=SYSTEM)
    for number in range(10_000 if IS_FULL else 500):
        await submit(pool, tenant="greedy", prompt=SYSTEM, output_tokens=256, now=NOW + number / 100)
    single, _ = await submit(pool, tenant="modest", output_tokens=100, now=NOW + 200)
    served: list[str] = []
    while single not in served:
        ((request_id, attempt),) = await take(pool, "a")
        served.append(request_id)
        await finish(pool, "a", request_id, attempt, now=NOW + 201)
    assert served[0] == running
    assert len(served) - 2 <= 1 + TENANT_QUANTUM // 256 + 1, "its turn, what a match may cost it, and one for its age"
    await serve_all(pool, "a", now=NOW + 201)
    await leave(pool, "a")


async def test_weights_share_in_proportion(pool: PoolScripts) -> None:
    for number in range(60):
        await submit(pool, tenant="heavy", weight=3.0, output_tokens=100, now=NOW + 2 * number)
        await submit(pool, tenant="light", weight=1.0, output_tokens=100, now=NOW + 2 * number + 1)
    await register(pool, "a", slots=1)
    first = (await serve_all(pool, "a"))[:40]
    tenants = [await pool.redis.hget(pool.keys.request(request_id), "tenant") for request_id in first]
    # 30, but that each eighth claim takes the oldest, here anyone.
    assert 25 <= tenants.count(b"heavy") <= 35
    await leave(pool, "a")


async def test_the_real_cost_corrects_the_estimate(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool, tenant="t", prompt_tokens=100, output_tokens=400)
    assert float(await pool.redis.get(pool.keys.tag("normal", "t"))) == 500
    await finish(pool, "a", request_id, 1)
    assert float(await pool.redis.get(pool.keys.tag("normal", "t"))) == 9, "7 prompt and 2 output tokens"
    await leave(pool, "a")


async def test_a_class_keeps_its_own_time(pool: PoolScripts) -> None:
    """What others were served of another class must not carry a newcomer behind a long backlog."""
    many = [(await submit(pool, tenant="greedy", output_tokens=10))[0] for _ in range(10)]
    quick = [(await submit(pool, request_class="interactive", tenant="q", output_tokens=500))[0] for _ in range(5)]
    await register(pool, "a", slots=1)
    for request_id in quick:
        await take(pool, "a")
        await finish(pool, "a", request_id, 1)
    single, _ = await submit(pool, tenant="modest", output_tokens=10)
    served = await serve_all(pool, "a")
    assert served.index(single) <= 2
    assert sorted(served) == sorted([*many, single])
    await leave(pool, "a")


async def test_a_tenants_share_and_the_estimated_wait_bound_the_buffer(pool: PoolScripts) -> None:
    first, _ = await submit(pool, tenant="t", output_tokens=1000, tenant_max_waiting=1)
    assert (await submit(pool, tenant="t", tenant_max_waiting=1))[1].admission is Admission.TENANT_FULL
    second, other = await submit(pool, tenant="u", tenant_max_waiting=1)
    assert other.admission is Admission.WAITING
    slow = (await submit(pool, tenant="v", rate=100.0, max_wait_ms=5_000))[1]
    assert slow.admission is Admission.SLOW
    assert slow.number == 10_010
    assert int(await pool.redis.get(pool.keys.backlog("foreground"))) == 1001
    await register(pool, "a", slots=1)
    assert await serve_all(pool, "a") == [second, first], "the cheap one of another tenant first"
    assert int(await pool.redis.get(pool.keys.backlog("foreground"))) == 0
    await leave(pool, "a")


async def test_idempotency_key_leads_to_the_first_request(pool: PoolScripts) -> None:
    first, _ = await submit(pool, tenant="t", idempotency_key="k")
    again = (await submit(pool, tenant="t", idempotency_key="k"))[1]
    assert (again.admission, again.request_id) == (Admission.DUPLICATE, first)
    await submit(pool, tenant="t", idempotency_key="k", inbox="another")
    assert await pool.cancel(first, CANCELLED_FRAME, leaving_inbox="inbox") is Cancelled.FOLLOWED, "from then on"
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


async def fragile_request(pool: PoolScripts, *suitors: str, slots: int = 2) -> tuple[str, list[str]]:
    """A request that lost an agent, while each of `suitors` has one request running: the first has reserved it."""
    await register(pool, "lost", slots=1)
    fragile, _ = await submit(pool)
    await begin(pool, "lost", fragile, 1)
    busy: list[str] = []
    for suitor in suitors:
        await register(pool, suitor, slots=slots, now=NOW + LEASE)
        busy.append((await submit(pool, now=NOW + LEASE))[0])
    await lose(pool, "lost", now=NOW + LEASE)
    return fragile, busy


async def test_who_has_reserved_a_request_takes_nothing_else_not_even_its_own(pool: PoolScripts) -> None:
    late = NOW + LEASE
    fragile, (busy,) = await fragile_request(pool, "a")
    await hold(pool, "a", SYSTEM, now=late)
    own, _ = await submit(pool, prompt=SYSTEM, now=late)
    assert (await pool.claim("a", now_ms=late)).num_given == 0
    assert await pool.redis.zscore(pool.keys.free(), "a") is None
    assert await serve_all(pool, "a", now=late) == [busy, fragile, own]
    assert await pool.redis.hget(pool.keys.agent("a"), "reserved") is None
    await leave(pool, "a")


async def test_a_reserving_agent_keeps_nobody_else_from_work(pool: PoolScripts) -> None:
    """It looked free, so a new request went to it, was not taken, and waited beside an idle agent."""
    late = NOW + LEASE
    fragile, (busy,) = await fragile_request(pool, "a", slots=9)
    await register(pool, "b", slots=1, now=late)
    other, answer = await submit(pool, now=late)
    assert answer.admission is Admission.ASSIGNED
    assert await serve_all(pool, "b", now=late) == [other]
    assert await serve_all(pool, "a", now=late) == [busy, fragile]
    await leave(pool, "a", "b")


async def test_a_cancelled_reservation_frees_the_agent(pool: PoolScripts) -> None:
    late = NOW + LEASE
    fragile, (busy,) = await fragile_request(pool, "a")
    behind, answer = await submit(pool, now=late)
    assert answer.admission is Admission.WAITING
    assert await pool.cancel(fragile, CANCELLED_FRAME, now_ms=late) is Cancelled.CANCELLED
    assert await pool.redis.xlen(pool.keys.lane("a")) == 2, "at once"
    assert await serve_all(pool, "a", now=late) == [busy, behind]
    await leave(pool, "a")


async def test_a_leaving_agent_gives_its_reservation_up(pool: PoolScripts) -> None:
    late = NOW + LEASE
    fragile, (busy,) = await fragile_request(pool, "a")
    await begin(pool, "a", busy, 1, now=late)
    await register(pool, "b", slots=1, now=late)
    assert await pool.drain("a", now_ms=late) == 1
    assert await serve_all(pool, "b", now=late) == [fragile]
    await leave(pool, "a")
    assert await serve_all(pool, "b", now=late) == [busy]
    await leave(pool, "b")


async def test_a_leaving_agent_forgets_whom_it_kept_its_lane_for(pool: PoolScripts) -> None:
    late = NOW + LEASE
    fragile, (busy,) = await fragile_request(pool, "a")
    await finish(pool, "a", busy, 1, now=late)
    assert await pool.redis.hget(pool.keys.agent("a"), "solo") == fragile.encode()
    assert await pool.drain("a", now_ms=late) == 0
    assert await pool.redis.hget(pool.keys.agent("a"), "solo") is None
    await leave(pool, "a")
    await register(pool, "b", now=late)
    assert await serve_all(pool, "b", now=late) == [fragile]
    await leave(pool, "b")


async def test_a_shorter_match_waits_for_the_longest_while_that_saves_more(pool: PoolScripts) -> None:
    """Who has a free slot and holds less is told how much longer, and so is the freest, which is less patient."""
    await register(pool, "deep", slots=1)
    await register(pool, "shallow", slots=1)
    await register(pool, "freest", slots=4)
    await hold(pool, "deep", SYSTEM + OTHER)
    await hold(pool, "shallow", SYSTEM)
    first, _ = await submit(pool, prompt=SYSTEM + OTHER)
    second, answer = await submit(pool, prompt=SYSTEM + OTHER)
    assert answer.admission is Admission.WAITING
    ends = dict(chain_of_packed(chain_of(SYSTEM + OTHER)))
    whole, begun = max(ends.values()), max(ends.get(digest.encode(), 0) for digest in hashes_of(SYSTEM))
    assert 0 < begun < whole
    assert await pool.claim("shallow", now_ms=NOW) == Claimed(0, whole - begun + 1)
    assert await pool.claim("freest", now_ms=NOW) == Claimed(0, whole // 4 + 1)
    assert (await pool.claim("shallow", now_ms=NOW + whole - begun + 1)).num_given == 1
    assert await serve_all(pool, "shallow") == [second]
    assert await serve_all(pool, "deep") == [first]
    await leave(pool, "deep", "shallow", "freest")


async def test_exactly_a_tenth_is_a_match(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    await register(pool, "freest", slots=2)
    await pool.hold("a", ttl_ms=300_000, added=["seven-token"], now_ms=NOW)
    for num_tokens, agent in ((70, "a"), (71, "freest")):
        request_id, _ = await submit(pool, chain=b"seven-token\0\0\0\7", prompt_tokens=num_tokens)
        assert await serve_all(pool, agent) == [request_id]
    await leave(pool, "a", "freest")


async def test_the_time_until_a_steal_is_never_cut_to_nothing(pool: PoolScripts) -> None:
    """The server's clock has microseconds: 0.4 ms became 0, which means that there is nothing to wait for."""
    await register(pool, "holder", slots=1)
    await hold(pool, "holder", SYSTEM)
    first, _ = await submit(pool, prompt=SYSTEM)
    await register(pool, "thief", slots=1)
    second, _ = await submit(pool, prompt=SYSTEM)
    hint = (await pool.claim("thief", now_ms=NOW)).steal_after_ms
    assert await pool.claim("thief", now_ms=NOW + hint - 0.4) == Claimed(0, 1)
    assert (await pool.claim("thief", now_ms=NOW + hint)).num_given == 1
    assert await serve_all(pool, "holder") == [first]
    assert await serve_all(pool, "thief") == [second]
    await leave(pool, "holder", "thief")


async def test_a_preempted_request_does_not_avoid_an_idle_agent(pool: PoolScripts) -> None:
    await register(pool, "a", slots=2)
    one, _ = await submit(pool)
    other, _ = await submit(pool)
    await begin(pool, "a", one, 1)
    assert await pool.release("a", one, 1, now_ms=NOW) is Disposition.OK
    assert await pool.cancel(other, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLED
    assert await serve_all(pool, "a") == [one], "nothing runs that could end"
    await leave(pool, "a")


async def test_giving_up_the_last_one_ends_the_avoiding_of_the_others(pool: PoolScripts) -> None:
    await register(pool, "a", slots=2)
    ids = [(await submit(pool))[0] for _ in range(2)]
    for request_id in ids:
        await begin(pool, "a", request_id, 1)
    for request_id in ids:
        assert await pool.release("a", request_id, 1, now_ms=NOW) is Disposition.OK
    assert await pool.redis.xlen(pool.keys.lane("a")) == 2
    await leave(pool, "a")
    await register(pool, "b", slots=2)
    assert sorted(await serve_all(pool, "b")) == sorted(ids)
    await leave(pool, "b")


async def test_what_can_be_restored_is_left_to_its_holder_for_no_longer_than_that_takes(pool: PoolScripts) -> None:
    """From another agent, and from the shared store; by an agent that can, and of what is there."""
    near = {"restore": 100_000, "kv_url": "http://thief:1"}
    await register(pool, "holder", slots=1, prefill=1000)
    await hold(pool, "holder", SYSTEM)
    first, _ = await submit(pool, prompt=SYSTEM)
    await register(pool, "thief", slots=1, prefill=1000)
    second, _ = await submit(pool, prompt=SYSTEM + "next turn")
    saved = len(SYSTEM)
    assert (await pool.claim("thief", now_ms=NOW)).steal_after_ms > saved - 256
    await pool.renew("thief", lease_ms=LEASE, snapshot=near, now_ms=NOW)
    assert (await pool.claim("thief", now_ms=NOW)).steal_after_ms > saved - 256, "the holder gives nothing away"
    await pool.renew("holder", lease_ms=LEASE, snapshot={"kv_url": "http://holder:1"}, now_ms=NOW)
    assert 0 < (await pool.claim("thief", now_ms=NOW)).steal_after_ms <= saved / 100 + 2
    await pool.renew("thief", lease_ms=LEASE, snapshot={"kv_url": "", "kv_shared": 1}, now_ms=NOW)
    assert (await pool.claim("thief", now_ms=NOW)).steal_after_ms > saved - 256, "it is not in the store"
    assert await pool.hold("holder", ttl_ms=300_000, added=hashes_of(SYSTEM), is_shared=True, now_ms=NOW)
    claimed = await pool.claim("thief", now_ms=NOW)
    assert (await pool.claim("thief", now_ms=NOW + claimed.steal_after_ms)).num_given == 1
    await finish(pool, "thief", second, 1)
    await finish(pool, "holder", first, 1)
    await leave(pool, "holder", "thief")
