"""Stored responses: kept with their request for as long as was said, bounded, and gone when they are deleted."""

from __future__ import annotations

import pytest
from queue_calls import NOW, begin, finish, leave, register, settle, submit, take

from paddler.errors import RequestLost, RequestNotFound
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.responses import Responses, StorageSettings
from paddler.store.client import Store
from paddler.store.scripts import PoolScripts
from paddler.wire.stored import StoredResponse, decode_stored

pytestmark = pytest.mark.anyio

TTL_S = 5000
USUAL_S = 600
RECORD = StoredResponse(b'[{"role":"user"}]', (), 17)


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def keep(pool: PoolScripts, request_id: str, *, now: float = NOW, num: int = 100, size: int = 10_000) -> bool:
    return await pool.keep(request_id, b"x" * 100, ttl_s=TTL_S, max_num=num, max_bytes=size, now_ms=now)


async def ended(pool: PoolScripts, agent: str) -> str:
    """The id of a request that has been served."""
    request_id, _ = await submit(pool)
    [(request_id, attempt)] = await take(pool, agent)
    await finish(pool, agent, request_id, attempt)
    return request_id


async def ttls(pool: PoolScripts, request_id: str) -> list[int]:
    """Of request, journal, record and payload; -1 for ever, -2 not there."""
    keys = pool.keys
    names = (keys.request(request_id), keys.journal(request_id), keys.response(request_id), keys.payload(request_id))
    return [await pool.redis.ttl(name) for name in names]


async def kept(pool: PoolScripts) -> tuple[set[str], int]:
    """Ids and bytes by the index, whose two keys must agree."""
    sizes = {name.decode(): int(size) for name, size in (await pool.redis.hgetall(pool.keys.kept())).items()}
    total = sizes.pop("", 0)
    assert total == sum(sizes.values())
    assert {name.decode() for name in await pool.redis.zrange(pool.keys.kept_by_age(), 0, -1)} == set(sizes)
    return set(sizes), total


async def test_a_response_lives_as_long_as_was_said_from_its_end_on(pool: PoolScripts) -> None:
    await register(pool, "a1")
    request_id, _ = await submit(pool)
    assert await keep(pool, request_id)
    assert await keep(pool, request_id), "a repeated call changes nothing"
    assert await ttls(pool, request_id) == [-1, -2, -1, -1]
    assert await kept(pool) == ({request_id}, 100)
    [(_, attempt)] = await take(pool, "a1")
    offset = await begin(pool, "a1", request_id, attempt)
    await settle(pool, "a1", request_id, attempt, offset)
    request, journal, record, payload = await ttls(pool, request_id)
    assert min(request, journal, record) > TTL_S - 5
    assert payload <= USUAL_S
    await leave(pool, "a1")


async def test_one_that_has_ended_before_it_was_stored(pool: PoolScripts) -> None:
    await register(pool, "a1")
    request_id = await ended(pool, "a1")
    assert (await ttls(pool, request_id))[0] <= USUAL_S
    assert await keep(pool, request_id)
    assert min((await ttls(pool, request_id))[:3]) > TTL_S - 5
    await leave(pool, "a1")


async def test_a_short_time_does_not_shorten_that_of_the_request(pool: PoolScripts) -> None:
    await register(pool, "a1")
    request_id = await ended(pool, "a1")
    await pool.keep(request_id, b"x", ttl_s=5, max_num=9, max_bytes=9, now_ms=NOW)
    request, journal, record, _ = await ttls(pool, request_id)
    assert record <= 5 < min(request, journal)
    await leave(pool, "a1")


async def test_one_whose_request_is_gone_is_not_stored(pool: PoolScripts) -> None:
    assert not await keep(pool, "default.nobody")
    assert await kept(pool) == (set(), 0)


async def test_who_was_used_longest_ago_makes_room(pool: PoolScripts) -> None:
    await register(pool, "a1")
    first, second, third, fourth = [await ended(pool, "a1") for _ in range(4)]
    await keep(pool, first, now=NOW, num=2)
    await keep(pool, second, now=NOW + 1, num=2)
    assert await pool.touch([first, "default.nobody"], ttl_s=TTL_S, now_ms=NOW + 2) == 1
    await keep(pool, third, now=NOW + 3, num=2)
    assert await kept(pool) == ({first, third}, 200)
    assert await ttls(pool, second) == [-2, -2, -2, -2], "nothing is left of it"
    await keep(pool, fourth, now=NOW + 4, size=150)
    assert await kept(pool) == ({fourth}, 100), "bytes make room alike"
    await leave(pool, "a1")


async def test_what_still_runs_makes_no_room(pool: PoolScripts) -> None:
    await register(pool, "a1", slots=1)
    running, _ = await submit(pool)
    waiting, _ = await submit(pool)
    await keep(pool, running, num=1)
    await keep(pool, waiting, now=NOW + 1, num=1)
    assert (await kept(pool))[0] == {running, waiting}
    for _ in range(2):
        [(request_id, attempt)] = await take(pool, "a1")
        await finish(pool, "a1", request_id, attempt)
    last = await ended(pool, "a1")
    await keep(pool, last, now=NOW + 2, num=1)
    assert (await kept(pool))[0] == {last}
    await leave(pool, "a1")


async def test_what_has_gone_by_its_time_leaves_the_index(pool: PoolScripts) -> None:
    await register(pool, "a1")
    first, second, third = [await ended(pool, "a1") for _ in range(3)]
    await keep(pool, first)
    await keep(pool, second, now=NOW + 1)
    await pool.redis.delete(pool.keys.response(first))
    await pool.redis.delete(pool.keys.request(second))
    await keep(pool, third, now=NOW + 2)
    assert await kept(pool) == ({third}, 100)
    assert await pool.redis.exists(pool.keys.response(second)) == 0, "a record without a request is of no use"
    await leave(pool, "a1")


async def test_deleting(pool: PoolScripts) -> None:
    await register(pool, "a1")
    request_id = await ended(pool, "a1")
    await keep(pool, request_id)
    assert await pool.forget(request_id)
    assert not await pool.forget(request_id)
    assert await ttls(pool, request_id) == [-2, -2, -2, -2]
    assert await kept(pool) == (set(), 0)
    running, _ = await submit(pool)
    await keep(pool, running)
    assert await pool.forget(running)
    assert (await ttls(pool, running))[2] == -2
    [(_, attempt)] = await take(pool, "a1")
    await finish(pool, "a1", running, attempt)
    assert 0 < (await ttls(pool, running))[0] <= USUAL_S, "what was to be kept longer is not any more"
    await leave(pool, "a1")


async def test_a_cancelled_one_is_stored_too(pool: PoolScripts) -> None:
    request_id, _ = await submit(pool)
    await keep(pool, request_id)
    await pool.cancel(request_id, CANCELLED_FRAME)
    assert min((await ttls(pool, request_id))[:3]) > TTL_S - 5


async def test_tenants_do_not_see_each_others(store: Store) -> None:
    pool = store.pool("default")
    responses = Responses(store, StorageSettings(ttl_s=TTL_S))
    request_id, _ = await submit(pool, tenant="mine")
    await responses.keep(request_id, RECORD)
    assert await responses.read(request_id, "mine") == RECORD
    [turn] = await responses.turns([request_id], "mine")
    assert turn is not None
    assert (turn.state, turn.record, turn.tokens) == ("waiting", RECORD, ())
    with pytest.raises(RequestNotFound):
        await responses.read(request_id, "theirs")
    assert await responses.turns([request_id], "theirs") == [None]
    await pool.cancel(request_id, CANCELLED_FRAME)


async def test_a_conversation_is_kept_together(store: Store) -> None:
    """Its last turn keeps those before it, also in other pools."""
    first_pool, pool = store.pool("other"), store.pool("default")
    first, _ = await submit(first_pool, request_id="other." + "x" * 22)
    second, _ = await submit(pool)
    short, long = (Responses(store, StorageSettings(ttl_s=ttl_s)) for ttl_s in (700, TTL_S))
    await short.keep(first, RECORD)
    await first_pool.cancel(first, CANCELLED_FRAME)
    assert (await ttls(first_pool, first))[2] <= 700
    await long.keep(second, StoredResponse(b"[]", (first,), 19))
    assert min((await ttls(first_pool, first))[:3]) > TTL_S - 5
    assert decode_stored(await pool.redis.get(pool.keys.response(second))).ancestors == (first,)
    await pool.cancel(second, CANCELLED_FRAME)
    with pytest.raises(RequestLost):
        await long.keep("default." + "x" * 22, RECORD)
