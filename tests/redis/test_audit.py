"""Every invariant, broken by hand and repaired; a whole pool is left as it is. Valkey 9 and Redis 7.0."""

from __future__ import annotations

import pytest
from queue_calls import NOW, begin, finish, leave, register, submit, take

from paddler.jobs.endings import CANCELLED_FRAME
from paddler.store.client import Store
from paddler.store.results import AuditItem, Mended
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Finished, FinishReason, decode_frames

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def everything(pool: PoolScripts) -> list[AuditItem]:
    """All that there is to audit."""
    items: list[AuditItem] = []
    for where, stream in (
        ("demand", pool.keys.demand()),
        ("demand:batch", pool.keys.demand_batch()),
        ("buffer", pool.keys.buffer()),
    ):
        for entry, fields in await pool.redis.xrange(stream):
            items.append(AuditItem(where, fields[b"id"].decode(), entry.decode()))
    ids = {key.decode().rpartition(":")[2] for key in await pool.redis.keys(f"{pool.keys.base}:request:*")}
    ids |= {member.decode() for member in await pool.redis.zrange(pool.keys.age(), 0, -1)}
    items += [AuditItem("request", request_id) for request_id in sorted(ids)]
    agents = {key.decode().rpartition(":")[2] for key in await pool.redis.keys(f"{pool.keys.base}:lane:*")}
    agents |= {member.decode() for member in await pool.redis.zrange(pool.keys.agents(), 0, -1)}
    return [*items, *(AuditItem("agent", agent) for agent in sorted(agents)), AuditItem("backlog")]


async def audit(pool: PoolScripts, *items: AuditItem) -> list[Mended]:
    """Of everything, or of these items; a second audit finds nothing, and every repair is counted."""

    async def counted() -> dict[str, int]:
        return {name.decode(): int(number) for name, number in (await pool.redis.hgetall(pool.keys.counters())).items()}

    before = await counted()
    mended = await pool.audit(items or await everything(pool), cancel_frame=CANCELLED_FRAME, now_ms=NOW)
    after = await counted()
    for what in {one.what for one in mended}:
        assert after[what] - before.get(what, 0) == sum(one.what == what for one in mended)
    assert await pool.audit(await everything(pool), cancel_frame=CANCELLED_FRAME, now_ms=NOW) == []
    return mended


async def what(pool: PoolScripts) -> set[tuple[str, str]]:
    return {(one.what, one.id) for one in await audit(pool)}


async def state(pool: PoolScripts, request_id: str) -> str | None:
    found: bytes | None = await pool.redis.hget(pool.keys.request(request_id), "state")
    return found.decode() if found else None


async def test_a_whole_pool_is_left_as_it_is(pool: PoolScripts) -> None:
    assert await what(pool) == set()
    await register(pool, "a", slots=2)
    running, _ = await submit(pool)
    assigned, _ = await submit(pool, request_class="batch")
    waiting, _ = await submit(pool, start_timeout_ms=1000, tenant="t")
    late, _ = await submit(pool, request_class="batch", prompt="x" * 1000)
    await take(pool, "a")
    await begin(pool, "a", running, 1)
    assert await what(pool) == set()
    await finish(pool, "a", running, 1)
    await pool.cancel(waiting, CANCELLED_FRAME, now_ms=NOW)
    assert await what(pool) == set()
    await leave(pool, "a")
    assert await what(pool) == set()
    for request_id in (assigned, late):
        await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)
    assert await what(pool) == set()


async def test_a_ledger_entry_of_an_ended_or_unknown_request_is_removed(pool: PoolScripts) -> None:
    ended, _ = await submit(pool)
    await pool.cancel(ended, CANCELLED_FRAME, now_ms=NOW)
    await pool.redis.xadd(pool.keys.demand(), {"id": ended})
    await pool.redis.xadd(pool.keys.demand_batch(), {"id": "unknown"})
    assert await what(pool) == {("repaired_ledger", ended), ("repaired_ledger", "unknown")}
    assert await pool.redis.xlen(pool.keys.demand()) == await pool.redis.xlen(pool.keys.demand_batch()) == 0


@pytest.mark.parametrize("request_class", ["normal", "batch"])
async def test_an_unfinished_request_gets_its_ledger_entry_back(pool: PoolScripts, request_class: str) -> None:
    request_id, _ = await submit(pool, request_class=request_class)
    ledger = pool.keys.demand_batch() if request_class == "batch" else pool.keys.demand()
    await pool.redis.xtrim(ledger, maxlen=0)
    assert await what(pool) == {("repaired_ledger", request_id)}
    assert await pool.redis.xlen(ledger) == 1
    await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)
    assert await pool.redis.xlen(ledger) == 0, "its end finds the new entry"


async def test_a_waiting_request_missing_from_any_list_is_entered_again(pool: PoolScripts) -> None:
    keys = pool.keys
    first, _ = await submit(pool)
    lost, _ = await submit(pool, start_timeout_ms=5000)
    last, _ = await submit(pool)
    backlog = await pool.redis.get(keys.backlog("foreground"))
    for command in (
        ("XTRIM", keys.buffer(), "MAXLEN", 0),
        ("ZREM", keys.order("normal"), lost),
        ("ZREM", keys.age(), lost),
        ("SREM", keys.queued("foreground", "anonymous"), lost),
    ):
        assert await pool.redis.execute_command(*command)
        assert ("repaired_buffer", lost) in await what(pool)
        assert await pool.redis.xlen(keys.buffer()) == 3
        assert [one.decode() for one in await pool.redis.zrange(keys.order("normal"), 0, -1)] == [first, lost, last]
        assert await pool.redis.zscore(keys.age(), lost) == NOW
        assert await pool.redis.zscore(keys.deadlines(), lost) == NOW + 5000
        assert await pool.redis.get(keys.backlog("foreground")) == backlog
    for request_id in (first, lost, last):
        await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)
    assert await pool.redis.get(keys.backlog("foreground")) == b"0"


async def test_each_side_has_its_own_lists(pool: PoolScripts) -> None:
    keys = pool.keys
    front, _ = await submit(pool, tenant="t", output_tokens=3)
    batch, _ = await submit(pool, tenant="t", request_class="batch", output_tokens=5)
    aside, _ = await submit(pool, tenant="t", is_background=True, output_tokens=7)
    assert await what(pool) == set()
    for request_id in (batch, aside):
        for command in (
            ("SREM", keys.aside(), request_id),
            ("SREM", keys.queued("background", "t"), request_id),
            ("SADD", keys.queued("foreground", "t"), request_id),
        ):
            assert await pool.redis.execute_command(*command)
            assert await what(pool) == {("repaired_buffer", request_id)}
    for key in (keys.aside(), keys.queued("background", "t")):
        assert await pool.redis.sadd(key, front)
        assert await what(pool) == {("repaired_buffer", front)}
        assert await pool.redis.smembers(key) == {batch.encode(), aside.encode()}
    assert await pool.redis.smembers(keys.queued("foreground", "t")) == {front.encode()}
    await pool.redis.set(keys.backlog("background"), 5)
    assert await what(pool) == {("repaired_backlog", "background")}
    assert await pool.redis.mget(keys.backlog("foreground"), keys.backlog("background")) == [b"3", b"12"]
    await pool.redis.sadd(keys.aside(), "unknown")
    assert await audit(pool, AuditItem("request", "unknown")) == [Mended("repaired_buffer", "unknown")]
    for request_id in (front, batch, aside):
        await pool.cancel(request_id, CANCELLED_FRAME, now_ms=NOW)


async def test_what_does_not_wait_is_removed_from_the_lists(pool: PoolScripts) -> None:
    """The forgotten request that stands first in order would stop every claim."""
    await register(pool, "a", slots=1)
    running, _ = await submit(pool)
    await take(pool, "a")
    await begin(pool, "a", running, 1)
    waiting, _ = await submit(pool)
    for request_id in ("unknown", running):
        await pool.redis.xadd(pool.keys.buffer(), {"id": request_id})
        await pool.redis.zadd(pool.keys.order("interactive"), {request_id: 0})
        await pool.redis.zadd(pool.keys.age(), {request_id: 0})
    await pool.redis.zadd(pool.keys.order("batch"), {waiting: 0})
    assert await what(pool) == {("repaired_buffer", one) for one in ("unknown", running, waiting)}
    assert await pool.redis.xlen(pool.keys.buffer()) == 1
    await finish(pool, "a", running, 1)
    assert await take(pool, "a") == [(waiting, 1)]
    await finish(pool, "a", waiting, 1)
    await leave(pool, "a")


async def test_a_tenants_waiting_ids_are_those_that_wait(pool: PoolScripts) -> None:
    await pool.redis.sadd(pool.keys.queued("foreground", "t"), "unknown")
    waiting, _ = await submit(pool, tenant="t")
    items = [AuditItem("queued", request_id, "foreground:t") for request_id in ("unknown", waiting)]
    assert await audit(pool, *items) == [Mended("repaired_buffer", "unknown")]
    assert await pool.redis.smembers(pool.keys.queued("foreground", "t")) == {waiting.encode()}
    await pool.cancel(waiting, CANCELLED_FRAME, now_ms=NOW)


async def test_a_ticket_that_is_nowhere_is_put_back_and_served(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    lost, _ = await submit(pool)
    await take(pool, "a")
    await begin(pool, "a", lost, 1)
    await pool.redis.xtrim(pool.keys.lane("a"), maxlen=0)
    assert await what(pool) == {("repaired_lost", lost), ("repaired_free", "a")}
    assert await take(pool, "a") == [(lost, 3)], "put back and claimed, each with a new fence"
    await finish(pool, "a", lost, 3)
    await leave(pool, "a")


async def test_a_lost_ticket_that_was_cancelled_is_ended(pool: PoolScripts) -> None:
    await register(pool, "a", slots=1)
    lost, _ = await submit(pool)
    await take(pool, "a")
    await begin(pool, "a", lost, 1)
    await pool.cancel(lost, CANCELLED_FRAME, now_ms=NOW)
    await pool.redis.xtrim(pool.keys.lane("a"), maxlen=0)
    assert ("repaired_lost", lost) in await what(pool)
    assert await state(pool, lost) == "cancelled"
    *_, last = decode_frames(await pool.redis.get(pool.keys.journal(lost)))
    assert last == Finished(FinishReason.CANCELLED)
    await leave(pool, "a")


async def test_a_foreign_ticket_in_a_lane_is_removed(pool: PoolScripts) -> None:
    await register(pool, "a", slots=2)
    own, _ = await submit(pool)
    await pool.redis.xadd(pool.keys.lane("a"), {"id": own, "attempt": 1})
    await pool.redis.xadd(pool.keys.lane("a"), {"id": "unknown", "attempt": 1})
    assert await what(pool) == {("repaired_lane", own), ("repaired_lane", "unknown")}
    assert await pool.redis.xlen(pool.keys.lane("a")) == 1
    assert await pool.redis.zscore(pool.keys.free(), "a") == 1
    await finish(pool, "a", own, 1)
    await leave(pool, "a")


@pytest.mark.parametrize("score", [None, 7])
async def test_free_slots_are_derived_again_and_used(pool: PoolScripts, score: int | None) -> None:
    await register(pool, "a", slots=2)
    if score is None:
        await pool.redis.zrem(pool.keys.free(), "a")
    else:
        await pool.redis.zadd(pool.keys.free(), {"a": score})
    assert await what(pool) == {("repaired_free", "a")}
    assert await pool.redis.zscore(pool.keys.free(), "a") == 2
    await leave(pool, "a")


async def test_a_reserved_lane_without_its_request_is_opened(pool: PoolScripts) -> None:
    await register(pool, "a", slots=2)
    await pool.redis.hset(pool.keys.agent("a"), "solo", "unknown")
    assert await what(pool) == {("repaired_solo", "a")}
    _, answer = await submit(pool)
    assert answer.admission == "assigned"
    await pool.cancel(answer.request_id, CANCELLED_FRAME, now_ms=NOW)
    await leave(pool, "a")


async def test_the_backlog_is_what_waits(pool: PoolScripts) -> None:
    waiting, _ = await submit(pool, prompt="x" * 500, output_tokens=100)
    await pool.redis.set(pool.keys.backlog("foreground"), 5)
    assert await audit(pool, AuditItem("backlog")) == [Mended("repaired_backlog", "foreground")]
    assert await pool.redis.get(pool.keys.backlog("foreground")) == b"600"
    await pool.redis.set(pool.keys.backlog("foreground"), 5)
    assert await pool.audit([AuditItem("backlog")], cancel_frame=b"", max_summed=0, now_ms=NOW) == []
    assert await audit(pool) == [Mended("repaired_backlog", "foreground")]
    await pool.cancel(waiting, CANCELLED_FRAME, now_ms=NOW)
    assert await pool.redis.get(pool.keys.backlog("foreground")) == b"0"


@pytest.mark.parametrize("missing", ["agents", "agent"])
async def test_of_half_an_agent_nothing_is_left_but_its_requests(pool: PoolScripts, missing: str) -> None:
    """Nobody would reap it."""
    await register(pool, "a", slots=2)
    running, _ = await submit(pool)
    if missing == "agents":
        await pool.redis.zrem(pool.keys.agents(), "a")
    else:
        await pool.redis.delete(pool.keys.agent("a"))
    items = [AuditItem("agent", "a"), AuditItem("request", running)]
    mended = await pool.audit(items, cancel_frame=CANCELLED_FRAME, now_ms=NOW)
    assert mended == [Mended("repaired_agent", "a"), Mended("repaired_lost", running)]
    assert await state(pool, running) == "waiting"
    assert not (await pool.renew("a", lease_ms=1000, now_ms=NOW)).is_alive
    assert await pool.redis.keys(f"{pool.keys.base}:*:a") == []
    await pool.cancel(running, CANCELLED_FRAME, now_ms=NOW)


async def test_an_ended_request_has_a_ttl_and_an_unfinished_one_has_none(pool: PoolScripts) -> None:
    ended, _ = await submit(pool)
    await pool.cancel(ended, CANCELLED_FRAME, now_ms=NOW)
    waiting, _ = await submit(pool)
    for key in (pool.keys.request(ended), pool.keys.payload(ended), pool.keys.journal(ended)):
        assert await pool.redis.persist(key)
    await pool.redis.expire(pool.keys.payload(waiting), 10)
    await pool.redis.set(pool.keys.payload("unknown"), "payload of nobody")
    assert await audit(pool, *(AuditItem("request", one) for one in (ended, waiting, "unknown"))) == [
        Mended("repaired_ttl", ended),
        Mended("repaired_ttl", waiting),
        Mended("repaired_ttl", "unknown"),
    ]
    assert await pool.redis.ttl(pool.keys.payload(waiting)) == -1
    await pool.cancel(waiting, CANCELLED_FRAME, now_ms=NOW)
