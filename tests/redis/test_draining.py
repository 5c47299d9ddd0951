"""What an operator tells an agent, in Redis: nothing new is given to it, nothing is lost, and it holds for the process,
whatever id that registers under. Valkey 9 and Redis 7.0; `test_model.py` asks the same of any sequence of calls."""

from __future__ import annotations

import pytest
from queue_calls import LEASE, NOW, begin, finish, leave, lose, settle, submit, take

from paddler.jobs.agent_orders import AgentOrders
from paddler.jobs.lanes import read_lanes
from paddler.store.client import Store
from paddler.store.drain_keys import drained_key
from paddler.store.results import Admission, Disposition, Emission, Order, Ordered
from paddler.store.scripts import PoolScripts, source
from paddler.wire.agent import OperatorOrder, decode_control
from paddler.wire.balancer import Tokens, Vectors, encode_frame

pytestmark = pytest.mark.anyio

DAY_S = 86_400


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def register(pool: PoolScripts, agent: str, *, slots: int = 2, process: str = "p", now: float = NOW) -> int:
    snapshot = {"slots": slots, "state": "ready", "prefill": 1000.0, "process_id": process}
    claimed = await pool.register(agent, lease_ms=LEASE, model="m", seen_s=1, snapshot=snapshot, now_ms=now)
    return claimed.num_given


async def tell(pool: PoolScripts, agent: str, order: Order) -> Ordered | None:
    return await pool.order(agent, order, now_ms=NOW)


async def state_of(store: Store, pool: PoolScripts, agent: str) -> str:
    (lane,) = await read_lanes(store, pool.keys, [(agent, NOW + LEASE)], NOW)
    return lane.state


async def test_lua_builds_the_key_that_python_does(pool: PoolScripts) -> None:
    script = f"{source('common')}{source('draining')}\nbegin(KEYS, ARGV)\nreturn drained_key('x')"
    built = await pool.redis.eval(script, 1, pool.keys.base, 0)
    assert built.decode() == drained_key(pool.keys, "x")


async def test_a_drained_agent_gets_nothing_and_keeps_what_it_runs(any_store: Store, pool: PoolScripts) -> None:
    await register(pool, "a")
    running, _ = await submit(pool)
    begun, _ = await submit(pool)
    ((one, attempt), (other, _)) = await take(pool, "a")
    assert (one, other) == (running, begun)
    offset = await begin(pool, "a", running, attempt)
    assert await tell(pool, "a", Order.DRAIN) == Ordered(True, 1)
    assert await state_of(any_store, pool, "a") == "draining"
    later, answer = await submit(pool)
    assert answer.admission is Admission.WAITING
    score = await pool.redis.zscore(pool.keys.order("normal"), begun)
    assert score < await pool.redis.zscore(pool.keys.order("normal"), later), "it is back at its old place"
    assert (await pool.claim("a", now_ms=NOW)).num_given == 0
    renewed = await pool.renew("a", lease_ms=LEASE, now_ms=NOW)
    assert (renewed.asked, renewed.is_alive) == ("drain", True)
    await settle(pool, "a", running, attempt, offset)
    assert await state_of(any_store, pool, "a") == "drained"
    assert await take(pool, "a") == []
    assert await pool.redis.zscore(pool.keys.agents(), "a"), "it stays registered"

    assert await tell(pool, "a", Order.UNDRAIN) == Ordered(True, 2)
    assert [request_id for request_id, _ in await take(pool, "a")] == [begun, later]
    assert await state_of(any_store, pool, "a") == "ready"
    for request_id, number in ((begun, 3), (later, 1)):
        await finish(pool, "a", request_id, number)
    await leave(pool, "a")


async def test_another_agent_takes_what_a_drained_one_had_not_begun(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool)
    await take(pool, "a")
    await register(pool, "b", slots=1, process="q")
    await tell(pool, "a", Order.DRAIN)
    ((taken, attempt),) = await take(pool, "b")
    assert (taken, attempt) == (request_id, 3)
    assert (await pool.open("a", request_id, 1, b"frame", now_ms=NOW)).disposition is Disposition.FENCED
    await finish(pool, "b", request_id, attempt)
    await leave(pool, "a", "b")


@pytest.mark.parametrize("is_reaped", [True, False], ids=["reaped", "by itself"])
async def test_a_process_that_lost_its_lease_comes_back_as_it_was(
    any_store: Store, pool: PoolScripts, is_reaped: bool
) -> None:
    await register(pool, "a")
    await tell(pool, "a", Order.DRAIN)
    if is_reaped:
        await lose(pool, "a", now=NOW + LEASE + 1)
    else:
        await leave(pool, "a")
    waiting, _ = await submit(pool, now=NOW + LEASE)
    assert await register(pool, "a2", now=NOW + LEASE) == 0
    assert await state_of(any_store, pool, "a2") == "drained"
    await pool.renew("a2", lease_ms=LEASE, now_ms=NOW + LEASE)
    assert DAY_S - 60 < await pool.redis.ttl(drained_key(pool.keys, "p")) <= DAY_S
    await pool.order("a2", Order.UNDRAIN, now_ms=NOW + LEASE)
    ((taken, attempt),) = await take(pool, "a2")
    assert taken == waiting
    await finish(pool, "a2", waiting, attempt, now=NOW + LEASE)
    await leave(pool, "a2")
    assert await register(pool, "a3") == 0
    assert await state_of(any_store, pool, "a3") == "ready", "undrained for good"
    await leave(pool, "a3")


async def test_a_new_process_is_not_drained(any_store: Store, pool: PoolScripts) -> None:
    await register(pool, "a")
    await tell(pool, "a", Order.DRAIN)
    await leave(pool, "a")
    await register(pool, "b", process="q")
    assert await state_of(any_store, pool, "b") == "ready"
    await leave(pool, "b")


async def test_a_removed_process_does_not_come_back(pool: PoolScripts) -> None:
    await register(pool, "a")
    await tell(pool, "a", Order.REMOVE)
    assert (await pool.renew("a", lease_ms=LEASE, now_ms=NOW)).asked == "remove"
    for order in (Order.DRAIN, Order.UNDRAIN):
        assert await tell(pool, "a", order) == Ordered(False), "it is leaving"
    await leave(pool, "a")
    assert await register(pool, "a2") == -1
    assert await pool.redis.exists(pool.keys.agent("a2"), pool.keys.lane("a2")) == 0
    assert await pool.redis.zscore(pool.keys.agents(), "a2") is None
    assert await tell(pool, "a", Order.REMOVE) is None


async def test_by_force_what_runs_is_handed_over_at_once(any_store: Store, pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool)
    await take(pool, "a")
    await begin(pool, "a", request_id, 1)
    orders = AgentOrders(any_store)
    assert (await orders.pool_of("a"), await orders.pool_of("b")) == ("default", None)
    assert await orders.tell("default", "a", Order.REMOVE, is_forced=True) == Ordered(True)
    assert await pool.redis.exists(pool.keys.agent("a")) == 0
    assert not (await pool.renew("a", lease_ms=LEASE, now_ms=NOW)).is_alive
    await register(pool, "b", process="q")
    ((taken, attempt),) = await take(pool, "b")
    assert (taken, await pool.redis.hget(pool.keys.request(request_id), "deaths")) == (request_id, None)
    await finish(pool, "b", request_id, attempt)
    await leave(pool, "b")


async def test_a_state_of_its_own_does_not_undrain_it(any_store: Store, pool: PoolScripts) -> None:
    await register(pool, "a")
    await tell(pool, "a", Order.DRAIN)
    await pool.renew("a", lease_ms=LEASE, snapshot={"state": "loading", "slots": 0}, now_ms=NOW)
    assert await state_of(any_store, pool, "a") == "loading"
    await pool.renew("a", lease_ms=LEASE, snapshot={"state": "ready", "slots": 2}, now_ms=NOW)
    waiting, _ = await submit(pool)
    assert await take(pool, "a") == []
    await pool.order("a", Order.UNDRAIN, now_ms=NOW)
    ((taken, attempt),) = await take(pool, "a")
    await finish(pool, "a", taken, attempt)
    assert taken == waiting
    await leave(pool, "a")


async def test_it_is_told_over_its_control_channel(pool: PoolScripts) -> None:
    await register(pool, "a")
    async with pool.redis.pubsub() as channel:
        await channel.subscribe(pool.keys.control("a"))
        await channel.get_message(timeout=5)
        await tell(pool, "a", Order.DRAIN)
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
        assert decode_control(message["data"]) == OperatorOrder("drain")
    await leave(pool, "a")


async def test_when_a_request_first_spoke_and_was_handed_over(pool: PoolScripts) -> None:
    """A sign of life of an agent that computes is no first token."""
    key = pool.keys.request
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool)
    await take(pool, "a")
    offset = await begin(pool, "a", request_id, 1)
    sign, word = encode_frame(Vectors((), ())), encode_frame(Tokens((1,), "a"))
    await pool.emit("a", [Emission(request_id, 1, offset, sign)], now_ms=NOW + 5)
    assert await pool.redis.hget(key(request_id), "first") is None
    await pool.emit("a", [Emission(request_id, 1, offset + len(sign), word)], now_ms=NOW + 7)
    await pool.emit("a", [Emission(request_id, 1, offset + len(sign) + len(word), word)], now_ms=NOW + 9)
    await leave(pool, "a")
    first, returned, returns = await pool.redis.hmget(key(request_id), "first", "returned", "returns")
    assert (float(first), float(returned), int(returns)) == (NOW + 7, NOW, 1)
    await register(pool, "b", slots=1, process="q")
    ((_, attempt),) = await take(pool, "b")
    opened = await pool.open("b", request_id, attempt, encode_frame(Tokens((1,), "")), now_ms=NOW)
    await settle(pool, "b", request_id, attempt, len(opened.journal))
    await leave(pool, "b")


async def test_what_says_all_at_its_end_has_its_first_token_then(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    request_id, _ = await submit(pool)
    await take(pool, "a")
    await finish(pool, "a", request_id, 1, now=NOW + 3)
    assert float(await pool.redis.hget(pool.keys.request(request_id), "first")) == NOW + 3
    await leave(pool, "a")


async def test_what_an_agent_gave_up_does_not_avoid_it_once_it_is_empty(pool: PoolScripts) -> None:
    """Drained while all that it has left has not begun, it has nothing whose end would let it take that back."""
    await register(pool, "a")
    ids = [(await submit(pool))[0] for _ in range(2)]
    await take(pool, "a")
    await begin(pool, "a", ids[0], 1)
    assert await pool.release("a", ids[0], 1, now_ms=NOW) is Disposition.OK
    assert await take(pool, "a") == [], "it avoids the agent"
    assert await tell(pool, "a", Order.DRAIN) == Ordered(True, 0)
    assert await tell(pool, "a", Order.UNDRAIN) == Ordered(True, 2)
    taken = await take(pool, "a")
    assert {request_id for request_id, _ in taken} == set(ids)
    for request_id, attempt in taken:
        opened = await pool.open("a", request_id, attempt, encode_frame(Tokens((1,), "")), now_ms=NOW)
        await settle(pool, "a", request_id, attempt, len(opened.journal))
    await leave(pool, "a")
