"""The list of unfinished requests: pages that fit together, filters, bounded work, and the times of one request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from queue_calls import NOW, begin, finish, leave, submit, take

from paddler.clock import SystemClock
from paddler.errors import RequestNotFound
from paddler.jobs.board import RequestBoard
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.fleet_view import FleetView
from paddler.jobs.request_list import CHUNK, MAX_LOOKED, Filter, Listed, RequestList
from paddler.jobs.timeline import read_timeline
from paddler.store.client import Store
from paddler.store.keys import PoolKeys
from paddler.store.results import Emission
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Opened, Tokens, encode_frame

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool(store: Store) -> PoolScripts:
    return store.pool("default")


@pytest.fixture
def listing(store: Store) -> RequestList:
    return RequestList(store)


async def register(pool: PoolScripts, agent: str, *, slots: int = 1, **more: Any) -> None:
    snapshot = {"slots": slots, "state": "ready", "name": f"name of {agent}", **more}
    await pool.register(agent, lease_ms=3_600_000, model="m", seen_s=1, snapshot=snapshot)


async def all_pages(listing: RequestList, limit: int, **where: Any) -> list[Listed]:
    found: list[Listed] = []
    cursor = None
    while True:
        page = await listing.page("default", Filter(**where), limit=limit, cursor=cursor)
        assert len(page.requests) <= limit
        found += page.requests
        if (cursor := page.cursor) is None:
            return found


async def cancel_all(pool: PoolScripts, *ids: str) -> None:
    for request_id in ids:
        await pool.cancel(request_id, CANCELLED_FRAME)


async def test_an_empty_pool(listing: RequestList) -> None:
    assert await all_pages(listing, 10) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_what_agents_have_then_what_waits_in_order(listing: RequestList, pool: PoolScripts, limit: int) -> None:
    await register(pool, "a", slots=2)
    await register(pool, "b")
    given = [(await submit(pool, now=0, tenant="t"))[0] for _ in range(3)]
    normal = [(await submit(pool, now=0, tenant=tenant, output_tokens=9))[0] for tenant in ("t", "u")]
    batch, _ = await submit(pool, now=0, request_class="batch")
    first, _ = await submit(pool, now=0, request_class="interactive", is_background=True)
    found = await all_pages(listing, limit)
    assert {one.id for one in found[:3]} == set(given)
    assert [one.agent for one in found[:3]] == ["a", "a", "b"]
    assert [one.position for one in found] == [None, None, None, 0, 1, 2, 3]
    assert [one.id for one in found[3:]] in ([first, *normal, batch], [first, *normal[::-1], batch])
    assert [one.state for one in found] == ["assigned"] * 3 + ["waiting"] * 4
    assert [one.is_background for one in found[3:]] == [True, False, False, False]
    await cancel_all(pool, *given, *normal, batch, first)
    await leave(pool, "a", "b")


async def test_filters(listing: RequestList, pool: PoolScripts) -> None:
    await register(pool, "a", running_tokens=b"{}")
    running, _ = await submit(pool, now=0, tenant="t")
    await take(pool, "a")
    await begin(pool, "a", running, 1, now=0)
    mine, _ = await submit(pool, now=0, tenant="t")
    batch, _ = await submit(pool, now=0, tenant="t", request_class="batch")
    other, _ = await submit(pool, now=0, tenant="u")

    async def ids(**where: Any) -> set[str]:
        return {one.id for one in await all_pages(listing, 2, **where)}

    assert await ids(state="running") == {running}
    assert await ids(state="assigned") == set()
    assert await ids(state="waiting") == {mine, batch, other}
    assert await ids(tenant="t") == {running, mine, batch}
    assert await ids(request_class="batch") == {batch}
    assert await ids(request_class="normal", state="waiting") == {mine, other}
    assert await ids(agent="a") == {running}
    assert await ids(agent="nobody") == set()
    assert await ids(agent="a", state="waiting") == set()
    await pool.renew("a", lease_ms=3_600_000, snapshot={"running_tokens": f'{{"{running}": 17}}'})
    (one,) = await all_pages(listing, 2, state="running")
    assert (one.num_tokens, one.agent_name, one.model, one.attempt) == (17, "name of a", None, 1)
    assert one.running_ms is not None
    await cancel_all(pool, mine, batch, other)
    await leave(pool, "a")
    await cancel_all(pool, running)


async def test_a_page_goes_on_behind_a_request_that_is_gone(listing: RequestList, pool: PoolScripts) -> None:
    """All of one score: Redis has them in the order of their ids."""
    ids = sorted([(await submit(pool, now=0, tenant=f"t{number}"))[0] for number in range(9)])
    assert len({await pool.redis.zscore(pool.keys.order("normal"), one) for one in ids}) == 1
    page = await listing.page("default", Filter(), limit=4)
    assert [one.id for one in page.requests] == ids[:4]
    await cancel_all(pool, ids[3], ids[0])
    rest = await listing.page("default", Filter(), limit=9, cursor=page.cursor)
    assert [one.id for one in rest.requests] == ids[4:]
    assert rest.cursor is None
    await cancel_all(pool, *ids)


@pytest.mark.parametrize("cursor", ["x", "é", "kwAAAA", "lMKhYaFi-g", "not base64!", "A" * 500])
async def test_a_cursor_that_nobody_gave(listing: RequestList, cursor: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        await listing.page("default", Filter(), limit=4, cursor=cursor)


class Counting(RequestList):
    """Counts the requests that it looks at."""

    num_looked = 0

    async def _rows(self, keys: PoolKeys, entries: list[Any]) -> list[list[Any]]:
        self.num_looked += len(entries)
        return await super()._rows(keys, entries)


async def test_a_call_looks_at_a_bounded_number(store: Store, pool: PoolScripts) -> None:
    """Of two thousand and some that wait one passes, the last: three calls find it."""
    listing = Counting(store)
    calls = [submit(pool, now=NOW, tenant="t") for _ in range(2 * MAX_LOOKED + CHUNK)]
    ids = [request_id for request_id, _ in await asyncio.gather(*calls)]
    wanted, _ = await submit(pool, now=NOW, tenant="u", request_class="batch")
    cursor, pages = None, list[list[str]]()
    while True:
        listing.num_looked = 0
        page = await listing.page("default", Filter(tenant="u"), limit=50, cursor=cursor)
        assert listing.num_looked <= MAX_LOOKED
        pages.append([one.id for one in page.requests])
        if (cursor := page.cursor) is None:
            break
    assert pages == [[], [], [wanted]]
    listing.num_looked = 0
    page = await listing.page("default", Filter(), limit=50)
    assert [one.position for one in page.requests] == list(range(50))
    assert listing.num_looked <= CHUNK
    await asyncio.gather(*(pool.cancel(one, CANCELLED_FRAME) for one in (*ids, wanted)))


async def test_the_times_of_a_request(store: Store, pool: PoolScripts) -> None:
    clock = SystemClock()
    views = FleetView(store, clock)

    async def events(request_id: str) -> list[str]:
        return [one.event for one in (await read_timeline(store, views, clock, request_id)).events]

    waiting, _ = await submit(pool, now=0)
    found = await read_timeline(store, views, clock, waiting)
    assert [one.event for one in found.events] == ["accepted", "buffered"]
    assert (found.status.position, found.agent) == (0, None)
    await register(pool, "a")
    await take(pool, "a")
    assert await events(waiting) == ["accepted", "buffered", "delivered"]
    offset = await begin(pool, "a", waiting, 1, now=0)
    await pool.emit("a", [Emission(waiting, 1, offset, encode_frame(Tokens((1, 2), "hi")))])
    found = await read_timeline(store, views, clock, waiting)
    assert [one.event for one in found.events] == ["accepted", "buffered", "delivered", "opened", "first_token"]
    assert (found.agent, found.agent_name, found.status.route.num_tokens) == ("a", "name of a", 2)
    await pool.reap("a", max_deaths=3, dead_frame=b"", cancel_frame=CANCELLED_FRAME, is_leaving=True)
    assert (await events(waiting))[-1] == "handed_over"
    await cancel_all(pool, waiting)
    assert (await events(waiting))[-2:] == ["handed_over", "ended"]

    await register(pool, "b")
    at_once, _ = await submit(pool, now=0)
    await take(pool, "b")
    await finish(pool, "b", at_once, 1, now=0)
    assert await events(at_once) == ["accepted", "delivered", "opened", "first_token", "ended"]
    await leave(pool, "b")
    with pytest.raises(RequestNotFound):
        await events("default." + "x" * 22)


async def test_it_tells_how_often_an_agent_began_a_request(store: Store, pool: PoolScripts) -> None:
    """The fence also grows when a request comes back, and when it is given to an agent that never begins it."""
    clock = SystemClock()
    views, listing = FleetView(store, clock), RequestList(store)
    board = RequestBoard(store, "default", lambda label: label.decode())
    request_id, _ = await submit(pool, now=0)

    async def told() -> tuple[int, int]:
        await board.look()
        (one,) = await all_pages(listing, 2)
        status = (await read_timeline(store, views, clock, request_id)).status
        assert one.opens == status.opens == board.rows[request_id].opens
        return one.attempt, one.opens

    assert await told() == (0, 0)
    await register(pool, "a")
    await take(pool, "a")
    assert await told() == (1, 0)
    await leave(pool, "a")
    for name, attempt, opens in (("b", 3, 1), ("c", 5, 2)):
        await register(pool, name)
        await take(pool, name)
        await begin(pool, name, request_id, attempt, now=0)
        await pool.open(name, request_id, attempt, encode_frame(Opened(name, attempt)), now_ms=0)
        assert await told() == (attempt, opens), "repeated, opening changes nothing"
        await leave(pool, name)
        assert await told() == (attempt + 1, opens)
    await cancel_all(pool, request_id)
    await board.look()
    assert board.ended[request_id].opens == 2
