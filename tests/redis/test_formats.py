"""Processes of several formats on one pool: who may work, and who is told that it may not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from queue_calls import LEASE, NOW, submit

from paddler.store.client import Store
from paddler.store.format import Record, read_record
from paddler.store.results import Admission, Entered, Entry
from paddler.store.scripts import PoolScripts, ScriptCaller, library

pytestmark = pytest.mark.anyio

Of = Callable[..., PoolScripts]


@pytest.fixture
async def of(any_store: Store) -> AsyncIterator[Of]:
    """The scripts of a version: of its format and the oldest beside which it works. What a test leaves is deleted."""

    def build(number: int, oldest: int) -> PoolScripts:
        caller = ScriptCaller(any_store.pipe, any_store.pipe, number, oldest)
        return PoolScripts(any_store.redis, caller, any_store.pool("default").keys)

    yield build
    await any_store.redis.delete(*[key async for key in any_store.redis.scan_iter(f"{any_store.prefix}:*")])


async def enter(pool: PoolScripts, version: str = "1.0", *, may_raise: bool = True) -> Entered:
    return await pool.enter(version, may_raise=may_raise, now_ms=NOW)


async def register(pool: PoolScripts, agent: str, **told: str | int) -> int:
    snapshot = {"slots": 1, "state": "ready", "name": agent, **told}
    claimed = await pool.register(agent, lease_ms=LEASE, model="", seen_s=1, snapshot=snapshot, now_ms=NOW)
    return claimed.num_given


async def test_an_untouched_pool_belongs_to_whoever_comes(of: Of) -> None:
    assert await enter(of(7, 5)) == Entered(Entry.OK, 7, 5, "1.0")
    assert await read_record(of(7, 5).redis, of(7, 5).keys) == Record(7, 5, "1.0")


async def test_a_pool_of_processes_without_numbers_is_of_the_first_format(of: Of) -> None:
    await submit(of(1, 1))
    assert (await enter(of(3, 2))).entry is Entry.UNREAD
    assert await read_record(of(1, 1).redis, of(1, 1).keys) is None, "a refusal changes nothing"
    assert await enter(of(2, 1), "2.0") == Entered(Entry.OK, 2, 1, "2.0")


async def test_neighbours_work_side_by_side(of: Of) -> None:
    """Format 2 works beside 1: requests of one are taken by agents of the other, whoever came first."""
    older, newer = of(1, 1), of(2, 1)
    assert (await enter(older, "1.0")).entry is Entry.OK
    assert await enter(newer, "2.0") == Entered(Entry.OK, 2, 1, "2.0")
    assert await enter(older, "1.1") == Entered(Entry.OK, 2, 1, "1.1")
    assert await read_record(older.redis, older.keys) == Record(2, 1, "2.0"), "who is older takes nothing back"
    assert await register(older, "old", format=1) == 0
    assert (await submit(newer))[1].admission is Admission.ASSIGNED
    assert await register(newer, "new", format=2) == 0
    assert (await submit(older))[1].admission is Admission.ASSIGNED


async def test_who_was_left_behind_is_told_so(of: Of) -> None:
    await enter(of(2, 1))
    await enter(of(3, 2), "3.0")
    left = of(1, 1)
    assert await enter(left) == Entered(Entry.OUTDATED, 3, 2, "3.0")
    assert (await submit(left))[1].admission is Admission.OUTDATED
    assert await register(left, "old") == -2
    assert await left.redis.exists(left.keys.agents(), left.keys.lane("old"), left.keys.demand()) == 0
    assert (await enter(of(2, 1))).entry is Entry.OK, "the version before may still come"
    assert (await enter(of(5, 4))).entry is Entry.UNREAD, "two steps at once are one too many"


async def test_nobody_is_shut_out_while_an_agent_of_it_works(of: Of) -> None:
    await enter(of(2, 1))
    await register(of(1, 1), "old", format=1)
    await register(of(2, 1), "new", format=2)
    assert await enter(of(3, 2)) == Entered(Entry.BESIDE, 1, 1, "old")
    assert (await submit(of(1, 1)))[1].admission is Admission.ASSIGNED, "those that work go on"
    lost = NOW + LEASE + 1
    assert (await of(3, 2).enter("3.0", may_raise=True, now_ms=lost)).entry is Entry.OK


async def test_an_agent_without_a_number_is_of_the_first_format(of: Of) -> None:
    await enter(of(2, 1))
    await register(of(1, 1), "old")
    assert (await enter(of(3, 2))).entry is Entry.BESIDE


async def test_agents_shut_nobody_out(of: Of) -> None:
    """They see no balancers: one of those has to come first."""
    await enter(of(2, 1))
    assert (await enter(of(3, 2), may_raise=False)).entry is Entry.EARLY
    assert (await enter(of(3, 2))).entry is Entry.OK
    assert (await enter(of(3, 2), may_raise=False)).entry is Entry.OK


async def test_who_stands_aside_takes_nothing_and_holds_nobody_up(of: Of) -> None:
    await enter(of(2, 2))
    aside = of(1, 1)
    await aside.aside("old", lease_ms=LEASE, snapshot={"state": "failed", "format": 1, "slots": 0}, now_ms=NOW)
    assert (await submit(of(2, 2)))[1].admission is Admission.WAITING
    assert (await enter(of(2, 2))).entry is Entry.OK
    await of(3, 3).redis.hset(aside.keys.format(), mapping={"number": 3, "oldest": 2})
    assert (await enter(of(3, 3))).entry is Entry.OK, "an agent that takes nothing is in nobody's way"
    await aside.aside("old", lease_ms=0)
    assert await aside.redis.exists(aside.keys.agents(), aside.keys.agent("old")) == 0


def test_each_format_has_a_library_of_its_own() -> None:
    assert library()[0] == library(1, 1)[0] != library(2, 1)[0]
    assert "@" not in library()[1].replace("@example", ""), "every number is filled in"


async def test_an_agent_opens_no_pool_with_its_own_numbers(of: Of) -> None:
    """One machine that was upgraded too early, with a pool of its own, would end all balancers and workers."""
    agent = of(3, 2)
    assert (await enter(agent, may_raise=False)).entry is Entry.EARLY
    await agent.aside("new", lease_ms=LEASE, snapshot={"state": "failed", "format": 3, "slots": 0}, now_ms=NOW)
    assert (await enter(of(2, 1))).entry is Entry.OK, "those that run may serve it"
    assert (await enter(agent, may_raise=False)).entry is Entry.EARLY
    await agent.redis.delete(agent.keys.format())
    assert await enter(of(3, 2), "3.0") == Entered(Entry.OK, 3, 2, "3.0"), "so may those of its own"
    assert (await enter(agent, may_raise=False)).entry is Entry.OK


async def test_an_agent_of_the_first_format_needs_nobody_before_it(of: Of) -> None:
    assert (await enter(of(1, 1), may_raise=False)).entry is Entry.OK
    assert await read_record(of(1, 1).redis, of(1, 1).keys) is None
    assert await register(of(1, 1), "one", format=1) == 0
    assert await enter(of(2, 1), "2.0") == Entered(Entry.OK, 2, 1, "2.0")
