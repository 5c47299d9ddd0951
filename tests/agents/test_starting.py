"""An agent before it serves: in its pool, without slots, saying how far it is or what keeps it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddler.clock import SystemClock
from paddler.engine import Engine, ModelError
from paddler.jobs.overview import Lane, Overview
from paddler.store.client import Store
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from workers.agent.mark import StartMark
from workers.agent.membership import Membership
from workers.agent.phases import Phase, Report
from workers.agent.starting import LoadStalled, Starting

pytestmark = pytest.mark.anyio

LEASE_MS = 500


class Bench:
    """One start; `lane` is how an operator sees it."""

    def __init__(self, store: Store, build: Callable[[Report, bool], Engine], **how: Any) -> None:
        self.store = store
        pool = store.pool("default")
        snapshot = {"state": "loading", "slots": 0, "name": "one"}
        self.membership = Membership(store, pool, SystemClock(), lease_ms=LEASE_MS, model="", snapshot=snapshot)
        how = {"files": (), "waits": True, "stall_s": 0.0} | how
        self.mark = StartMark(store, pool.keys, origin="here one", files=how["files"])
        starting = Starting(self.membership, self.mark, SystemClock(), build, **how)
        self.task = asyncio.create_task(starting.run())

    async def lane(self, state: str) -> Lane:
        async def find() -> Lane | None:
            lanes = (await Overview(self.store).pool("default")).lanes
            return next((lane for lane in lanes if lane.state == state), None)

        return await wait_until(find, what=f"an agent is {state}")

    async def done(self) -> Engine:
        engine = await self.task
        await self.membership.withdraw()
        return engine


async def test_a_load_longer_than_the_lease_stays_visible_with_its_progress(store: Store) -> None:
    told, go_on = threading.Event(), threading.Event()

    def build(report: Report, _is_suspect: bool) -> Engine:
        report(Phase.LOADING, 0.25)
        told.set()
        assert go_on.wait(20)
        return ScriptedEngine()

    bench = Bench(store, build)
    await asyncio.to_thread(told.wait, 20)

    async def is_told() -> bool:
        return (await bench.lane("loading")).progress == 0.25

    await wait_until(is_told)
    first = await bench.lane("loading")
    assert (first.name, first.phase, first.slots, first.issues) == ("one", "loading", 0, ())
    over = SystemClock().monotonic() + 3 * LEASE_MS / 1000
    await wait_until(lambda: SystemClock().monotonic() > over, what="three leases")
    assert (await bench.lane("loading")).agent == first.agent, "it is the same registration"
    assert (await bench.lane("loading")).lease_left_ms > 0
    go_on.set()
    await bench.done()
    assert (await Overview(store).pool("default")).lanes == []


async def test_it_is_given_nothing_while_it_loads(store: Store) -> None:
    go_on = threading.Event()

    def build(_report: Report, _is_suspect: bool) -> Engine:
        assert go_on.wait(20)
        return ScriptedEngine()

    bench = Bench(store, build)
    lane = await bench.lane("loading")
    pool = store.pool("default")
    assert (await pool.claim(lane.agent)).num_given == 0
    assert await pool.redis.zcard(pool.keys.free()) == 0
    go_on.set()
    await bench.done()


async def test_a_bad_file_is_an_issue_until_it_is_replaced(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("bad")
    tries: list[str] = []

    def build(_report: Report, _is_suspect: bool) -> Engine:
        tries.append(file.read_text())
        if tries[-1] == "bad":
            raise ModelError("the file is no good")
        return ScriptedEngine()

    bench = Bench(store, build, files=(file,))
    (issue,) = (await bench.lane("failed")).issues
    assert (issue.kind, issue.detail, issue.model_path) == ("ModelCannotBeLoaded", "the file is no good", str(file))
    assert "tries again as soon as the file changes" in issue.action
    assert "Download the file again" in issue.remedy
    over = SystemClock().monotonic() + 2.5
    await wait_until(lambda: SystemClock().monotonic() > over, what="some looks at the file")
    assert tries == ["bad"], "nothing is tried again for nothing"
    file.write_text("good")
    await bench.done()
    assert tries == ["bad", "good"]


async def test_settings_that_cannot_be_end_the_agent(store: Store) -> None:
    def build(_report: Report, _is_suspect: bool) -> Engine:
        raise ModelError("slots must be between 1 and 2, not 9", kind="SettingsInvalid")

    with pytest.raises(ModelError, match="slots"):
        await Bench(store, build).task


async def test_with_exit_any_model_error_ends_it(store: Store) -> None:
    def build(_report: Report, _is_suspect: bool) -> Engine:
        raise ModelError("no good")

    bench = Bench(store, build, waits=False)
    with pytest.raises(ModelError, match="no good"):
        await bench.task
    await bench.membership.withdraw()


async def test_a_load_that_stands_still_is_noticed(store: Store) -> None:
    go_on = threading.Event()

    def build(report: Report, _is_suspect: bool) -> Engine:
        report(Phase.LOADING, 0.5)
        go_on.wait(20)
        return ScriptedEngine()

    bench = Bench(store, build, stall_s=1.0)
    with pytest.raises(LoadStalled, match="loading has not moved from 50% for"):
        await bench.task
    go_on.set()
    await bench.membership.withdraw()


async def test_a_start_that_was_never_done_makes_the_next_one_careful(store: Store, tmp_path: Path) -> None:
    """What SIGSEGV does to the first one is as if it was never told of again."""
    file = tmp_path / "model.gguf"
    file.write_text("one")
    suspicions: list[bool] = []

    def build(_report: Report, is_suspect: bool) -> Engine:
        suspicions.append(is_suspect)
        return ScriptedEngine()

    keys = store.pool("default").keys
    assert not await StartMark(store, keys, origin="here one", files=(file,)).begin()
    await Bench(store, build, files=(file,)).done()
    await Bench(store, build, files=(file,)).done()
    assert not await StartMark(store, keys, origin="here one", files=(file,)).begin()
    file.write_text("another")
    await Bench(store, build, files=(file,)).done()
    assert suspicions == [True, False, False]
    await store.redis.delete(*[key async for key in store.redis.scan_iter(f"{keys.starting('*')}")])
