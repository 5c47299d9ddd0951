"""The scripts decide as the pure policy does: which request, by which rule, which agent, at what charge."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from queue_calls import IS_FULL, NOW, USAGE, begin, chain_of, finish, hashes_of, random_source, register, submit
from queue_policy import CLASSES, COUNTERS, PolicyState, chain_of_packed, read_policy_state

from paddler.routing import fairness
from paddler.routing.policy import Placement, RequestClass, Waiting, Why, choose_agent, match
from paddler.store.client import Store
from paddler.store.results import Admission
from paddler.store.scripts import PoolScripts

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600 if IS_FULL else 120)]

NUM_STATES = 1_500 if IS_FULL else 60
SYSTEM, OTHER = "You are helpful. " * 40, "Translate this. " * 50
LONG = SYSTEM + "b" * 9_000
PROMPTS = ("", SYSTEM, SYSTEM + "a" * 500, SYSTEM + "a" * 900, LONG, OTHER, OTHER + "c" * 400, "d" * 300)
TTL = 10**6
WEIGHTS = {"ann": 0.5, "bob": 1.0, "eve": 3.0}


@pytest.fixture
def chance() -> random.Random:
    return random_source()


async def set_agent(pool: PoolScripts, agent: str, **fields: str | int | float) -> None:
    await pool.redis.hset(pool.keys.agent(agent), mapping=fields)


async def build_agents(
    pool: PoolScripts, chance: random.Random, *, num: int, has_one_holder: bool = False
) -> list[str]:
    """Some hold prompts, some are busy, some will not live until `NOW` + 1. Or the first one holds all prompts."""
    agents = [f"a{n}" for n in range(num)]
    for agent in agents:
        slots, prefill = chance.randint(1, 4), chance.choice((0, 137.5, 1_000, 1_000))
        lease = 10**6 if has_one_holder else chance.choice((1, 10**6, 10**6, 10**6))
        snapshot: dict[str, str | int | float | bytes] = {"slots": slots, "state": "ready", "prefill": prefill}
        if chance.random() < 0.5:
            snapshot |= {"restore": chance.choice((0, 90, 1_333.25, 70_000)), "kv_shared": chance.choice(("", "1"))}
        if chance.random() < 0.5:
            snapshot["kv_url"] = f"http://{agent}:1"
        await pool.register(agent, lease_ms=lease, model="m", seen_s=1, snapshot=snapshot, now_ms=NOW)
        num_held = chance.randint(0, 3) if not has_one_holder else 0 if agent != agents[0] else len(PROMPTS) - 1
        for prompt in chance.sample(PROMPTS[1:], num_held):
            hashes = hashes_of(prompt)[: 99 if has_one_holder else chance.choice((1, 2, 3, 99))]
            since = chance.choice((NOW, NOW, NOW - TTL + 500))  # the last: nobody believes it any more
            await pool.hold(agent, ttl_ms=TTL, added=hashes, is_shared=chance.random() < 0.3, now_ms=since)
    for number in range(chance.randint(0, 8)):
        await submit(pool, now=NOW, request_id=f"default.b{number}")
    for agent in agents:
        await set_agent(pool, agent, claims=chance.randint(0, 20), state="loading")
        await pool.redis.zrem(pool.keys.free(), agent)
        await pool.redis.zadd(
            pool.keys.agents(), {agent: NOW + 10**6}, xx=True, gt=True
        ) if chance.random() < 0.8 else None
    return agents


async def build_waiting(
    pool: PoolScripts, chance: random.Random, agents: list[str], *, most: int, prompts: Sequence[str]
) -> None:
    num_reserved = 0
    for number in range(chance.randint(1, most)):
        tenant = chance.choice(list(WEIGHTS))
        request_id, answer = await submit(
            pool,
            now=NOW + chance.choice((10, 200, 500, 900, 999, 30_000, 119_000, 121_000)) * (number % 5 > 0),
            request_id=f"default.w{number}",
            prompt=chance.choice(prompts),
            request_class=chance.choice(CLASSES),
            tenant=tenant,
            weight=WEIGHTS[tenant],
            output_tokens=chance.randint(1, 512),
        )
        assert answer.admission is Admission.WAITING
        key = pool.keys.request(request_id)
        if chance.random() < 0.1:
            await pool.redis.hset(key, mapping={"avoid": chance.choice(agents)})
            await pool.redis.sadd(pool.keys.marked(), request_id)
        if chance.random() < 0.15:
            fruitless = chance.choice((0, 1, 2, 2))
            await pool.redis.hset(key, mapping={"deaths": 3, "fruitless": fruitless})
            await pool.redis.sadd(pool.keys.marked(), request_id)
            if fruitless and chance.random() < 0.5 and num_reserved < len(agents):
                await pool.redis.hset(key, "suitor", agents[num_reserved])
                await set_agent(pool, agents[num_reserved], reserved=request_id)
                num_reserved += 1


async def counters(pool: PoolScripts) -> dict[str, int]:
    return {key.decode(): int(num) for key, num in (await pool.redis.hgetall(pool.keys.counters())).items()}


async def lane(pool: PoolScripts, agent: str) -> list[str]:
    return [fields[b"id"].decode() for _, fields in await pool.redis.xrange(pool.keys.lane(agent))]


async def forget(pool: PoolScripts) -> None:
    keys = [key async for key in pool.redis.scan_iter(f"{pool.keys.base}*", count=1_000)]
    await pool.redis.unlink(*keys)


async def test_every_claim_is_the_policys(any_store: Store, chance: random.Random) -> None:
    rules = dict.fromkeys(Why, 0)
    num_hints = num_promoted = num_near = 0
    for number in range(NUM_STATES):
        pool = any_store.pool(f"p{number}")
        has_one_holder = number % 3 == 0
        agents = await build_agents(pool, chance, num=chance.randint(1, 5), has_one_holder=has_one_holder)
        prompts = PROMPTS[1:-1] if has_one_holder else PROMPTS
        await build_waiting(pool, chance, agents, most=90 if number % 10 == 0 else 15, prompts=prompts)
        for agent in chance.sample(agents, len(agents)):
            now = NOW + chance.choice((1_000, 1_000, 1_000, 1_300, 31_000, 121_500, 130_000))
            await set_agent(pool, agent, state="ready")
            state = await read_policy_state(pool, now)
            if agent not in state.agents:
                assert (await pool.claim(agent, now_ms=now)).num_given == -1
                continue
            before, held_before, counted = await lane(pool, agent), state.clocks.copy(), await counters(pool)
            promoted_before = {one.id: one.request_class for one in state.waiting.values()}
            num_near += bool(state.agents[agent].near) and state.agents[agent].restore_tokens_per_s > 1_000
            expected = state.claim(agent, now)
            answer = await pool.claim(agent, now_ms=now)
            given = (await lane(pool, agent))[len(before) :]
            assert given == [request_id for request_id, _ in expected.tickets], (expected, held_before)
            assert answer.num_given == len(given)
            assert abs(answer.steal_after_ms - expected.hint_ms) <= 1
            delta = {name: num - counted.get(name, 0) for name, num in (await counters(pool)).items()}
            whys = [why for _, why in expected.tickets]
            assert {why: delta.get(COUNTERS[why], 0) for why in Why} == {why: whys.count(why) for why in Why}
            for name in CLASSES:
                assert float(await pool.redis.get(pool.keys.vtime(name)) or 0) == pytest.approx(state.clocks[name])
            after = await read_policy_state(pool, now)
            assert {one.id: (one.request_class, one.since_ms) for one in after.waiting.values()} == {
                one.id: (one.request_class, one.since_ms) for one in state.waiting.values()
            }
            for place, tag in after.tags.items():
                assert tag == pytest.approx(state.tags[place])
            num_promoted += sum(one.request_class != promoted_before[one.id] for one in after.waiting.values())
            for why in whys:
                rules[why] += 1
            num_hints += expected.hint_ms > 0
            await set_agent(pool, agent, state="loading")
        await forget(pool)
    print(f"{NUM_STATES} states, { ({why.value: num for why, num in rules.items()}) }, {num_hints} hints")
    assert min(rules.values()) > 0, "every rule was needed"
    assert num_hints > 0
    assert num_promoted > 0
    assert num_near > 0


def possible_agents(
    state: PolicyState, request: Waiting, hint: str | None, now: int
) -> tuple[set[str | None], Placement]:
    """Whom the policy may give a request that finds nobody waiting; ties at random give several."""
    free = {agent_id: agent.num_free for agent_id, agent in state.agents.items() if agent.num_free > 0}
    targets = {
        choose_agent(request, state.holders, free, hint=hint or None, draw=draw) for draw in range(len(free) or 1)
    }
    (placement,) = {target.placement for target in targets}
    most = max(free.values(), default=0)
    freest = {agent_id for agent_id, num in free.items() if num == most}
    asked = {target.agent_id for target in targets if target.agent_id}
    if placement is Placement.HOLDER_IS_BUSY:
        asked = freest

    def taking(agent_ids: set[str]) -> set[str | None]:
        found: set[str | None] = set()
        for agent_id in agent_ids:
            state.waiting, state.starts = {request.id: request}, {request.id: 0.0}
            found.add(agent_id if state.claim(agent_id, now, limit=1).tickets else None)
        return found

    found = taking(asked)
    if None in found:  # by a holder that holds less than somebody busy, and leaves it: the freest is asked as well
        found |= taking(freest)
    return found or {None}, placement


async def test_every_new_request_goes_where_the_policy_says(any_store: Store, chance: random.Random) -> None:
    placements: set[Placement] = set()
    for number in range(NUM_STATES):
        pool = any_store.pool(f"s{number}")
        agents = await build_agents(pool, chance, num=chance.randint(1, 5))
        for agent in agents:
            await set_agent(pool, agent, state="ready")
            await pool.renew(agent, lease_ms=10**6, now_ms=NOW + 2)
        for request_id in await pool.redis.zrange(pool.keys.age(), 0, -1):
            await pool.cancel(request_id.decode(), b"", now_ms=NOW + 2)
        tenant, name, now = chance.choice(list(WEIGHTS)), chance.choice(CLASSES), NOW + 1_000
        prompt, hint, max_tokens = chance.choice(PROMPTS), chance.choice(("", "chat 7")), chance.randint(1, 900)
        clock, last = chance.choice((0.0, 70.25, 4_000.0)), chance.choice((0.0, 333.5))
        await pool.redis.set(pool.keys.vtime(name), clock)
        await pool.redis.set(pool.keys.tag(name, tenant), last, ex=100)
        chain = chain_of_packed(chain_of(prompt)) if prompt else ()
        state = await read_policy_state(pool, now)
        for digest, _ in chain:
            found = await pool.redis.zrangebyscore(pool.keys.holders(digest.decode()), f"({now}", "+inf")
            if live := [agent.decode() for agent in found if agent.decode() in state.agents]:
                state.holders[digest] = live
        request = new_request(name, tenant, now, chain, len(prompt))
        cost = fairness.cost(len(prompt), match(request, state.holders), max_tokens)
        tags = fairness.charge(clock, last, cost, WEIGHTS[tenant])
        expected, placement = possible_agents(state, request, hint or None, now)
        placements.add(placement)
        output_tokens = min(max_tokens, fairness.MAX_EXPECTED_OUTPUT)
        options = {"request_id": request.id, "request_class": name, "tenant": tenant, "weight": WEIGHTS[tenant]}
        await submit(pool, now=now, prompt=prompt, hint=hint, output_tokens=output_tokens, **options)
        got, charged, start, score = await pool.redis.hmget(
            pool.keys.request(request.id), "agent", "cost", "start", "score"
        )
        assert (got.decode() if got else None) in expected, (placement, expected)
        assert int(charged) == cost
        assert (float(start), float(score)) == pytest.approx((tags.start, tags.finish))
        assert float(await pool.redis.get(pool.keys.tag(name, tenant))) == pytest.approx(tags.finish)
        await forget(pool)
    assert placements == set(Placement)


def new_request(
    name: RequestClass, tenant: str, now: int, chain: tuple[tuple[bytes, int], ...], num_tokens: int
) -> Waiting:
    return Waiting(
        id="default.new",
        request_class=name,
        score=0.0,
        accepted_ms=now,
        chain=chain,
        num_tokens=num_tokens,
        tenant=tenant,
    )


async def test_the_correction_is_the_policys(any_store: Store) -> None:
    pool = any_store.pool("default")
    await register(pool, "a", slots=1)
    for number, (estimate, weight) in enumerate(((400, 1.0), (3, 2.0), (9, 0.5))):
        tenant = f"t{number}"
        request_id, _ = await submit(pool, tenant=tenant, weight=weight, output_tokens=estimate)
        key = pool.keys.tag("normal", tenant)
        charged = float(await pool.redis.get(key))
        await finish(pool, "a", request_id, 1)
        real = USAGE.prompt_tokens - USAGE.cached_tokens + USAGE.completion_tokens
        corrected = fairness.correct(charged, estimate, real, weight)
        assert float(await pool.redis.get(key)) == pytest.approx(corrected)
    for weight in (1.0, 3.0):
        request_id, _ = await submit(pool, tenant=f"v{weight}", weight=weight, output_tokens=70)
        key = pool.keys.tag("normal", f"v{weight}")
        corrected = fairness.correct(float(await pool.redis.get(key)), 70, 0, weight)
        await pool.cancel(request_id, b"", now_ms=NOW)
        assert float(await pool.redis.get(key)) == pytest.approx(corrected)
    request_id, _ = await submit(pool, tenant="u", output_tokens=100)
    await pool.redis.set(pool.keys.tag("normal", "u"), 5)
    await begin(pool, "a", request_id, 1)
    await finish(pool, "a", request_id, 1)
    assert float(await pool.redis.get(pool.keys.tag("normal", "u"))) == 0 == fairness.correct(5, 100, 9, 1.0)
    await forget(pool)
