"""The board of requests: after every look it is what Redis has, and a look reads only what may have moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from queue_calls import NOW, begin, finish, leave, settle, submit, take

from paddler.jobs import board as board_module
from paddler.jobs.board import HEAD, NAMES_EVERY, RequestBoard
from paddler.jobs.board_rows import Row
from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.jobs.journal_tokens import CHUNK, JournalTokens
from paddler.jobs.request_list import Filter, RequestList
from paddler.store.client import Store
from paddler.store.keys import CLASSES
from paddler.store.results import Emission
from paddler.store.scripts import PoolScripts
from paddler.wire.balancer import Frame, Tokens, Vectors, encode_frame

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool(store: Store) -> PoolScripts:
    return store.pool("default")


@pytest.fixture
def board(store: Store) -> RequestBoard:
    return RequestBoard(store, "default", lambda label: label.decode())


async def register(pool: PoolScripts, agent: str, *, slots: int = 1) -> None:
    snapshot: dict[str, Any] = {"slots": slots, "state": "ready", "name": f"name of {agent}", "model": "m"}
    await pool.register(agent, lease_ms=3_600_000, model="m", seen_s=1, snapshot=snapshot)


async def cancel_all(pool: PoolScripts, *ids: str) -> None:
    await asyncio.gather(*(pool.cancel(request_id, CANCELLED_FRAME) for request_id in ids))


def in_line(board: RequestBoard) -> list[str]:
    """As a page orders what it is told."""
    rows = [row for row in board.rows.values() if row.state == "waiting"]
    return [row.id for row in sorted(rows, key=lambda row: (CLASSES.index(row.served_as or ""), row.score, row.id))]


async def test_after_every_look_it_is_what_the_list_of_requests_says(
    store: Store, pool: PoolScripts, board: RequestBoard
) -> None:
    """A request of each way: it waits, is given, runs, is handed back, ends, is cancelled."""
    listing = RequestList(store)

    async def look() -> None:
        await board.look()
        found = (await listing.page("default", Filter(), limit=500)).requests
        assert {one.id: (one.state, one.agent, one.opens) for one in found} == {
            row.id: (row.state, row.agent, row.opens) for row in board.rows.values()
        }
        assert [one.id for one in found if one.state == "waiting"] == in_line(board)

    await look()
    ids = [(await submit(pool, now=0, tenant=tenant, label=b"called"))[0] for tenant in "tuv"]
    batch, _ = await submit(pool, now=0, request_class="batch")
    first, _ = await submit(pool, now=0, request_class="interactive", is_background=True)
    await look()
    assert (in_line(board)[0], in_line(board)[-1], len(board.rows)) == (first, batch, 5)
    assert board.rows[first].is_background
    assert {board.rows[one].model for one in ids} == {"called"}
    before = dict(board.rows)
    await look()
    assert all(board.rows[one] is before[one] for one in before)

    await register(pool, "a", slots=2)
    await look()
    given = sorted(row.id for row in board.rows.values() if row.state == "assigned")
    assert len(given) == 2
    assert {board.rows[one].agent_name for one in given} == {"name of a"}
    await take(pool, "a")
    offset = await begin(pool, "a", first, 1, now=0)
    await look()
    assert (board.rows[first].state, board.rows[first].model, board.tokens[first]) == ("running", "m", 0)
    await pool.emit("a", [Emission(first, 1, offset, encode_frame(Tokens((1, 2), "hi")))])
    running = board.rows[first]
    await look()
    assert board.rows[first] is running
    assert board.tokens[first] == 2

    await pool.reap("a", max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME, is_leaving=True)
    await look()
    assert (board.rows[first].state, board.rows[first].agent, board.ended) == ("waiting", None, {})
    await register(pool, "b")
    ((again, attempt),) = await take(pool, "b")
    await settle(pool, "b", again, attempt, await begin(pool, "b", again, attempt, now=0), now=0)
    await look()
    (end,) = board.ended.values()
    assert (end.id, end.state, end.prompt_tokens, end.tokens, end.agent) == (again, "done", 7, 2, "b")
    await leave(pool, "b")
    await cancel_all(pool, *ids, batch, first)
    await look()
    assert (board.rows, len(board.ended)) == ({}, 5)
    assert [one.state for one in board.ended.values()].count("cancelled") == 4


class Counting(RequestBoard):
    num_read = 0

    async def _read(self, request_ids: list[str]) -> dict[str, Row]:
        self.num_read = len(request_ids)
        return await super()._read(request_ids)


async def test_what_stands_in_its_place_is_not_read_again(store: Store, pool: PoolScripts) -> None:
    board = Counting(store, "default", lambda _: "")
    ids = [one for one, _ in await asyncio.gather(*(submit(pool, now=NOW) for _ in range(3 * HEAD)))]
    await board.look()
    assert board.num_read == len(ids)
    await board.look()
    assert board.num_read == HEAD
    more, _ = await submit(pool, now=NOW)
    await cancel_all(pool, ids[-1])
    await board.look()
    assert board.num_read <= HEAD + 2
    assert set(board.rows) == {*ids[:-1], more}
    assert list(board.ended) == [ids[-1]]
    await cancel_all(pool, *ids, more)


async def test_a_model_that_an_agent_gets_later_is_seen(pool: PoolScripts, board: RequestBoard) -> None:
    """Or another: whoever looks on does not go on reading what was there first."""
    request_id, _ = await submit(pool, now=NOW)
    await register(pool, "a")
    await board.look()
    assert board.rows[request_id].model == "m"
    await pool.renew("a", lease_ms=3_600_000, snapshot={"model": "other"})
    for _ in range(NAMES_EVERY):
        await board.look()
    assert (board.rows[request_id].agent_name, board.rows[request_id].model) == ("name of a", "other")
    await leave(pool, "a")
    await cancel_all(pool, request_id)


async def test_rows_are_bounded(pool: PoolScripts, board: RequestBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of those that wait; who is pushed behind the last row has not ended, and comes back."""
    monkeypatch.setattr(board_module, "MAX_WAITING", 3)
    ids = [(await submit(pool, now=0, tenant="t"))[0] for _ in range(4)]
    await board.look()
    assert list(board.rows) == ids[:3]
    first, _ = await submit(pool, now=0, request_class="interactive")
    await board.look()
    assert (set(board.rows), board.ended) == ({first, *ids[:2]}, {})
    await cancel_all(pool, first)
    await board.look()
    assert (set(board.rows), set(board.ended)) == (set(ids[:3]), {first})
    await cancel_all(pool, *ids)


async def test_what_ended_is_bounded_and_grows_old(
    pool: PoolScripts, board: RequestBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "MAX_ENDED", 2)
    ids = [(await submit(pool, now=0))[0] for _ in range(3)]
    await board.look()
    await cancel_all(pool, *ids)
    await board.look()
    assert len(board.ended) == 2
    monkeypatch.setattr(board_module, "ENDED_MS", -1_000_000)
    await board.look()
    assert board.ended == {}


async def test_a_dead_letter_that_is_requeued_has_not_ended(pool: PoolScripts, board: RequestBoard) -> None:
    request_id, _ = await submit(pool, now=0)
    for number in range(3):
        await register(pool, f"a{number}")
        await take(pool, f"a{number}")
        await begin(pool, f"a{number}", request_id, 2 * number + 1, now=0)
        await board.look()
        await pool.redis.zadd(pool.keys.agents(), {f"a{number}": 1})
        await pool.reap(f"a{number}", max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME)
    await board.look()
    assert [(one.state, one.deaths) for one in board.ended.values()] == [("failed", 3)]
    await pool.requeue(request_id)
    await board.look()
    assert (list(board.rows), board.ended) == ([request_id], {})
    await cancel_all(pool, request_id)
    await pool.drop(request_id)


async def test_tokens_are_counted_as_journals_grow(store: Store, pool: PoolScripts) -> None:
    """Over what no chunk holds, and not one twice."""
    counting = JournalTokens(store, pool.keys)
    await register(pool, "a", slots=2)
    one, other = [(await submit(pool, now=0))[0] for _ in range(2)]
    await take(pool, "a")
    offset = {request_id: await begin(pool, "a", request_id, 1, now=0) for request_id in (one, other)}

    async def say(request_id: str, *frames: Frame) -> None:
        said = b"".join(map(encode_frame, frames))
        (placed,) = await pool.emit("a", [Emission(request_id, 1, offset[request_id], said)])
        offset[request_id] = placed.length

    async def count(times: int = 1) -> list[int]:
        for _ in range(times - 1):
            await counting.count([one, other])
        return list((await counting.count([one, other])).values())

    assert await count() == [0, 0]
    await say(one, Tokens((1, 2, 3), "abc"))
    assert await count(2) == [3, 0]
    await say(one, Vectors((b"x" * (CHUNK + 1),), (1,)), Tokens((4,), "d"))
    await say(other, *[Tokens((1,), "x" * 200)] * 1000)
    assert await count(8) == [4, 1000]
    assert await counting.count([other]) == {other: 1000}
    await leave(pool, "a")
    await cancel_all(pool, one, other)


async def test_what_is_forgotten_between_two_looks(pool: PoolScripts, board: RequestBoard) -> None:
    await register(pool, "a")
    request_id, _ = await submit(pool, now=0)
    await board.look()
    await take(pool, "a")
    await finish(pool, "a", request_id, 1, now=0)
    await pool.redis.delete(pool.keys.request(request_id))
    await board.look()
    assert (board.rows, board.ended) == ({}, {})
    await leave(pool, "a")
