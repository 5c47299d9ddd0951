"""Each script alone, on Valkey 9 and Redis 7.0; time is an argument."""

from __future__ import annotations

import pytest
from queue_calls import END, LEASE, NOW, USAGE, begin, finish, leave, lose, register, serve_all, settle, submit, take

from paddler.jobs.endings import CANCELLED_FRAME, START_TIMEOUT_FRAME
from paddler.store.client import Store
from paddler.store.results import Admission, Cancelled, Disposition, Emission, Outcome, Submitted
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import (
    Delivery,
    Failed,
    Finished,
    FinishReason,
    Opened,
    Tokens,
    decode_delivery,
    decode_frames,
    encode_frame,
)

pytestmark = pytest.mark.anyio

HELLO = encode_frame(Tokens((1, 2), "hello"))


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


def _short(answer: Submitted) -> tuple[Admission, int]:
    return answer.admission, answer.number


async def waiting(pool: PoolScripts) -> int:
    length = await pool.redis.xlen(pool.keys.buffer())
    assert length == await pool.redis.zcard(pool.keys.age())
    assert length == await pool.redis.zcard(pool.keys.order("normal"))
    return length


async def demand(pool: PoolScripts) -> int:
    return await pool.redis.xlen(pool.keys.demand())


async def test_life_of_a_request(pool: PoolScripts) -> None:
    await register(pool, "a1")
    request_id, answer = await submit(pool)
    assert answer == Submitted(Admission.ASSIGNED, 0, request_id)
    assert (await waiting(pool), await demand(pool)) == (0, 1)

    assert await take(pool, "a1") == [(request_id, 1)]
    offset = await begin(pool, "a1", request_id, 1)
    assert await begin(pool, "a1", request_id, 1) == offset, "a repeated open appends no second frame"

    emission = Emission(request_id, 1, offset, HELLO)
    (placed,) = await pool.emit("a1", [emission], now_ms=NOW)
    assert placed.disposition is Disposition.OK
    assert (await pool.emit("a1", [emission], now_ms=NOW)) == [placed], "a repeated emit appends nothing"
    await settle(pool, "a1", request_id, 1, placed.length)
    await settle(pool, "a1", request_id, 1, placed.length)

    journal = await pool.redis.get(pool.keys.journal(request_id))
    assert list(decode_frames(journal)) == [Opened("a", 1), Tokens((1, 2), "hello"), Finished(FinishReason.STOP, USAGE)]
    assert (await waiting(pool), await demand(pool)) == (0, 0)
    assert await pool.redis.zscore(pool.keys.free(), "a1") == 2
    await leave(pool, "a1")


async def test_submit_is_idempotent_and_bounded(pool: PoolScripts) -> None:
    request_id, answer = await submit(pool, max_waiting=2)
    assert answer == Submitted(Admission.WAITING, 0, request_id)
    assert (await submit(pool, request_id=request_id, max_waiting=2))[1].admission is Admission.KNOWN
    assert _short((await submit(pool, max_waiting=2))[1]) == (Admission.WAITING, 1)
    assert _short((await submit(pool, max_waiting=2))[1]) == (Admission.FULL, 2)
    assert (await waiting(pool), await demand(pool)) == (2, 2)
    assert (await register(pool, "a1", slots=1)).num_given == 1, "the oldest goes first"
    assert await take(pool, "a1") == [(request_id, 1)]
    for expected in (request_id, None):
        if expected:
            await finish(pool, "a1", expected, 1)
    ((second, attempt),) = await take(pool, "a1")
    await finish(pool, "a1", second, attempt)
    await leave(pool, "a1")


async def test_a_free_slot_serves_even_without_a_buffer(pool: PoolScripts) -> None:
    await register(pool, "a1", slots=1)
    request_id, answer = await submit(pool, max_waiting=0)
    assert answer.admission is Admission.ASSIGNED
    assert (await submit(pool, max_waiting=0))[1].admission is Admission.FULL
    await finish(pool, "a1", request_id, 1)
    await leave(pool, "a1")


async def test_requests_spread_to_the_freest_agent(pool: PoolScripts) -> None:
    await register(pool, "a1", slots=2)
    await register(pool, "a2", slots=2)
    ids = [(await submit(pool))[0] for _ in range(5)]
    assert await waiting(pool) == 1
    for agent in ("a1", "a2"):
        assert await pool.redis.xlen(pool.keys.lane(agent)) == 2
    # The fifth is claimed by whoever settles first, in the same script.
    taken = {agent: await take(pool, agent) for agent in ("a1", "a2")}
    first = taken["a2"][0][0]
    await finish(pool, "a2", first, 1)
    assert await waiting(pool) == 0
    taken["a2"] = [*taken["a2"][1:], *await take(pool, "a2")]
    assert taken["a2"][-1] == (ids[4], 1)
    for agent, tickets in taken.items():
        for request_id, attempt in tickets:
            await finish(pool, agent, request_id, attempt)
    await leave(pool, "a1", "a2")


async def test_an_expired_agent_gets_nothing_and_is_reaped(pool: PoolScripts) -> None:
    await register(pool, "a1", slots=2)
    begun, _ = await submit(pool)
    unread, _ = await submit(pool)
    later, _ = await submit(pool)
    offset = await begin(pool, "a1", begun, 1)
    await pool.emit("a1", [Emission(begun, 1, offset, HELLO)], now_ms=NOW)

    late = NOW + LEASE + 1
    assert not (await pool.renew("a1", lease_ms=LEASE, now_ms=late)).is_alive
    assert (await pool.claim("a1", now_ms=late)).num_given == -1
    assert (await submit(pool, now=late))[1].admission is Admission.WAITING, "not to the dead one"
    early = await lose(pool, "a1", now=NOW)
    assert early.is_alive
    reaped = await lose(pool, "a1", now=late)
    assert (reaped.num_returned, reaped.num_failed) == (2, 0)
    order = [item.decode() for item in await pool.redis.zrange(pool.keys.order("normal"), 0, -1)]
    assert order[:3] == [begun, unread, later], "returned to their old places"
    assert (await pool.redis.hget(pool.keys.request(begun), "deaths"), await demand(pool)) == (b"1", 4)
    assert await pool.redis.hget(pool.keys.request(unread), "deaths") is None

    # The zombie wakes: its frames and its settle are refused.
    (placed,) = await pool.emit("a1", [Emission(begun, 1, offset + len(HELLO), HELLO)], now_ms=late)
    assert placed.disposition is Disposition.FENCED
    stale = Emission(begun, 1, offset + len(HELLO), END)
    assert (await pool.settle("a1", stale, Outcome.DONE, USAGE, now_ms=late)).disposition is Disposition.FENCED

    await register(pool, "a2", slots=4, now=late)
    assert (await serve_all(pool, "a2", now=late))[:3] == [begun, unread, later]
    await leave(pool, "a2")


async def test_what_had_got_on_goes_on_side_by_side_what_had_not_is_tried_alone(pool: PoolScripts) -> None:
    """One lost agent made the fleet serve its requests one after the other, each on an empty lane."""
    await register(pool, "a1", slots=4)
    ids = [(await submit(pool))[0] for _ in range(4)]
    for request_id in ids:
        offset = await begin(pool, "a1", request_id, 1)
        if request_id != ids[0]:
            await pool.emit("a1", [Emission(request_id, 1, offset, HELLO)], now_ms=NOW)
    late = NOW + LEASE + 1
    await register(pool, "a2", slots=4, now=late)
    busy, _ = await submit(pool, now=late, request_class="interactive")
    await lose(pool, "a1", now=late)
    assert await pool.redis.hget(pool.keys.request(ids[0]), "suitor") == b"a2", "the first in order wants the lane"
    await register(pool, "a3", slots=4, now=late)
    assert await take(pool, "a3") == [(request_id, 3) for request_id in ids[1:]], "at their old places, at once"
    await finish(pool, "a2", busy, 1, now=late)
    assert await take(pool, "a2") == [(ids[0], 3)]
    other, _ = await submit(pool, now=late)
    assert await take(pool, "a3") == [(other, 1)], "its lane takes nothing else"
    offset = await begin(pool, "a2", ids[0], 3, now=late)
    rest = [(await submit(pool, now=late))[0] for _ in range(3)]
    assert await take(pool, "a2") == []
    (placed,) = await pool.emit("a2", [Emission(ids[0], 3, offset, HELLO)], now_ms=late)
    assert [request_id for request_id, _ in await take(pool, "a2")] == rest, "until its first new frame"
    # What was fruitless once got on since: now it is a request like any other.
    for request_id in rest:
        await finish(pool, "a2", request_id, 1, now=late)
    later = late + LEASE + 1
    await register(pool, "a4", slots=4, now=later)
    beside, _ = await submit(pool, now=later)
    await lose(pool, "a2", now=later)
    assert await take(pool, "a4") == [(beside, 1), (ids[0], 5)]
    assert placed.length > 0
    for agent, request_id, attempt in (("a4", beside, 1), ("a4", ids[0], 5), ("a3", other, 1)):
        await finish(pool, agent, request_id, attempt, now=later)
    for request_id in ids[1:]:
        await finish(pool, "a3", request_id, 3, now=later)
    await leave(pool, "a3", "a4")


async def test_a_request_that_kills_agents_ends_in_dead(pool: PoolScripts) -> None:
    poison, _ = await submit(pool)
    now = NOW
    for death, agent in enumerate(("a1", "a2", "a3"), start=1):
        await register(pool, agent, now=now)
        ((_, attempt),) = await take(pool, agent)
        await begin(pool, agent, poison, attempt, now=now)
        now += LEASE + 1
        reaped = await lose(pool, agent, now=now)
        assert reaped.num_failed == (1 if death == 3 else 0)
    frames = list(decode_frames(await pool.redis.get(pool.keys.journal(poison))))
    assert isinstance(frames[-1], Failed)
    assert (await pool.redis.xlen(pool.keys.dead()), await demand(pool)) == (1, 0)


async def test_a_neighbour_is_not_held_up_by_a_reserved_request(pool: PoolScripts) -> None:
    """The suitor waits for its lane to empty; another agent serves what stands behind."""
    await register(pool, "a1", slots=1)
    fragile, _ = await submit(pool)
    await begin(pool, "a1", fragile, 1)
    late = NOW + LEASE + 1
    await register(pool, "a2", slots=2, now=late)
    busy, _ = await submit(pool, now=late)
    await lose(pool, "a1", now=late)
    assert await pool.redis.hget(pool.keys.request(fragile), "suitor") == b"a2"
    behind, answer = await submit(pool, now=late)
    assert answer.admission is Admission.WAITING, "a2 keeps its slots for the fragile one"
    await register(pool, "a3", slots=1, now=late)
    assert await take(pool, "a3") == [(behind, 1)]
    assert await take(pool, "a2") == [(busy, 1)]
    await finish(pool, "a2", busy, 1, now=late)
    assert await take(pool, "a2") == [(fragile, 3)]
    await finish(pool, "a2", fragile, 3, now=late)
    await finish(pool, "a3", behind, 1, now=late)
    await leave(pool, "a2", "a3")


async def test_cancel_in_every_state(pool: PoolScripts) -> None:
    await register(pool, "a1", slots=2)
    running, _ = await submit(pool)
    assigned, _ = await submit(pool)
    behind, _ = await submit(pool)
    last, _ = await submit(pool)
    offset = await begin(pool, "a1", running, 1)

    assert await pool.cancel(last, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLED
    assert await pool.cancel(assigned, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLED
    assert await waiting(pool) == 0, "its place in the lane went to the next one at once"
    stale = await pool.open("a1", assigned, 1, b"", now_ms=NOW)
    assert stale.disposition is Disposition.FENCED
    assert await pool.cancel(running, CANCELLED_FRAME, now_ms=NOW) is Cancelled.CANCELLING
    (placed,) = await pool.emit("a1", [Emission(running, 1, offset, HELLO)], now_ms=NOW)
    assert placed.disposition is Disposition.CANCELLED
    renewed = await pool.renew("a1", lease_ms=LEASE, now_ms=NOW)
    assert renewed.cancelled == (running,)
    end = Emission(running, 1, offset, CANCELLED_FRAME)
    assert (await pool.settle("a1", end, Outcome.CANCELLED, USAGE, now_ms=NOW)).disposition is Disposition.OK
    assert await pool.cancel(running, CANCELLED_FRAME, now_ms=NOW) is Cancelled.ENDED
    assert await pool.cancel("default.nobody", CANCELLED_FRAME, now_ms=NOW) is Cancelled.GONE
    await finish(pool, "a1", behind, 1)
    await leave(pool, "a1")


async def test_start_deadline(pool: PoolScripts) -> None:
    request_id, _ = await submit(pool, start_timeout_ms=100)
    assert await pool.expire(START_TIMEOUT_FRAME, now_ms=NOW + 99) == 0
    assert await pool.expire(START_TIMEOUT_FRAME, now_ms=NOW + 100) == 1
    assert await pool.expire(START_TIMEOUT_FRAME, now_ms=NOW + 100) == 0
    assert await pool.redis.hget(pool.keys.request(request_id), "state") == b"failed"
    assert (await waiting(pool), await demand(pool)) == (0, 0)


async def test_drain_returns_what_has_not_begun(pool: PoolScripts) -> None:
    await register(pool, "a1", slots=2)
    running, _ = await submit(pool)
    unread, _ = await submit(pool)
    offset = await begin(pool, "a1", running, 1)
    assert await pool.drain("a1", now_ms=NOW) == 1
    assert await waiting(pool) == 1
    assert (await pool.claim("a1", now_ms=NOW)).num_given == 0, "a leaving agent takes nothing"
    await leave(pool, "a1")
    assert await pool.redis.hget(pool.keys.request(running), "deaths") is None, "leaving is no death"
    await register(pool, "a2", slots=2)
    tickets = dict(await take(pool, "a2"))
    assert list(tickets) == [running, unread]
    opened = await pool.open("a2", running, tickets[running], encode_frame(Opened("b", 3)), now_ms=NOW)
    assert len(opened.journal) > offset
    await settle(pool, "a2", running, tickets[running], len(opened.journal))
    await finish(pool, "a2", unread, tickets[unread])
    await leave(pool, "a2")


async def test_emit_says_short_and_long(pool: PoolScripts) -> None:
    await register(pool, "a1")
    request_id, _ = await submit(pool)
    offset = await begin(pool, "a1", request_id, 1)
    short, long = await pool.emit(
        "a1", [Emission(request_id, 1, offset + 5, HELLO), Emission(request_id, 1, 0, HELLO)], now_ms=NOW
    )
    assert (short.disposition, short.length) == (Disposition.SHORT, offset)
    assert (long.disposition, long.length) == (Disposition.LONG, offset)
    await settle(pool, "a1", request_id, 1, offset)
    await leave(pool, "a1")


async def test_watchers_receive_frames_with_offsets(pool: PoolScripts) -> None:
    pubsub = pool.redis.pubsub()
    await pubsub.subscribe("inbox", "second")
    await register(pool, "a1")
    request_id, _ = await submit(pool)
    attached = await pool.attach(request_id, "second", 0, now_ms=NOW)
    assert (attached.state, attached.journal) == ("assigned", b"")
    offset = await begin(pool, "a1", request_id, 1)
    await settle(pool, "a1", request_id, 1, offset)
    got: list[tuple[bytes, Delivery]] = []
    while len(got) < 4:
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
        if message:
            got.append((message["channel"], decode_delivery(message["data"])))
    for channel in (b"inbox", b"second"):
        mine = [delivery for name, delivery in got if name == channel]
        assert [(item.request_id, item.offset) for item in mine] == [(request_id, 0), (request_id, offset)]
        assert mine[1].frames == END
    assert (await pool.attach(request_id, "second", offset, now_ms=NOW)).journal == END
    assert (await pool.attach("default.nobody", "second", 0, now_ms=NOW)).state is None
    await pubsub.aclose()
    await leave(pool, "a1")


async def test_a_request_that_gets_on_is_not_blamed_for_every_agent_it_loses(pool: PoolScripts) -> None:
    """Found by the chaos run: where agents died at random, three deaths met requests that had killed nobody."""
    innocent, _ = await submit(pool)
    now, failed = NOW, 0
    for death in range(1, 10):
        await register(pool, f"a{death}", now=now)
        ((_, attempt),) = await take(pool, f"a{death}")
        offset = await begin(pool, f"a{death}", innocent, attempt, now=now)
        await pool.emit(f"a{death}", [Emission(innocent, attempt, offset, HELLO)], now_ms=now)
        now += LEASE + 1
        reaped = await lose(pool, f"a{death}", now=now)
        failed = reaped.num_failed
        assert failed == (1 if death == 9 else 0), "it may crawl from death to death, but not for ever"
