"""An agent before it serves: in its pool, without slots, saying how far it is or what keeps it."""

from __future__ import annotations

import asyncio
import threading
import weakref
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
from paddler.up.starter import find_starter
from workers.agent.context import Context
from workers.agent.llama import Model
from workers.agent.loader import LoadStalled
from workers.agent.mark import StartMark
from workers.agent.membership import Membership
from workers.agent.phases import Phase, Report
from workers.agent.starting import Starting

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
        self.starting = Starting(self.membership, self.mark, SystemClock(), build, **how)
        self.task = asyncio.create_task(self.starting.run())

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


async def test_what_nobody_has_foreseen_is_an_issue_too(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("bad")

    def build(_report: Report, _is_suspect: bool) -> Engine:
        if file.read_text() == "bad":
            raise KeyError("general.architecture")
        return ScriptedEngine()

    bench = Bench(store, build, files=(file,))
    (issue,) = (await bench.lane("failed")).issues
    assert (issue.kind, issue.detail) == ("ModelCannotBeLoaded", "loading failed: KeyError: 'general.architecture'")
    file.write_text("good")
    await bench.done()


async def test_an_agent_that_waits_for_memory_holds_none(store: Store, tmp_path: Path) -> None:
    """The weights of the model whose context did not fit are gone before it waits; so is a context that was made."""
    file = tmp_path / "model.gguf"
    file.symlink_to(find_starter())
    held: list[weakref.ref[object]] = []

    def build(_report: Report, _is_suspect: bool) -> Engine:
        if held:
            assert [one() for one in held] == [None, None]
            return ScriptedEngine()
        model = Model(file)
        context = Context(model, num_sequences=1, context_size=64, max_batch=64, num_threads=1)
        held.extend((weakref.ref(model), weakref.ref(context)))
        raise ModelError("no room for another context", kind="SlotCannotStart")

    bench = Bench(store, build, files=(file,))
    assert (await bench.lane("failed")).issues[0].kind == "SlotCannotStart"
    await wait_until(lambda: [one() for one in held] == [None, None], what="they are freed")
    file.unlink()
    file.write_text("another")
    await bench.done()


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


async def test_a_long_check_is_no_standstill(store: Store) -> None:
    """The closer look may take half an hour, and says nothing meanwhile."""
    go_on = threading.Event()

    def build(_report: Report, _is_suspect: bool) -> Engine:
        go_on.wait(20)
        return ScriptedEngine()

    bench = Bench(store, build, stall_s=0.2)
    over = SystemClock().monotonic() + 1.5
    await wait_until(lambda: bench.task.done() or SystemClock().monotonic() > over, what="seven times the limit")
    go_on.set()
    await bench.done()


async def test_a_download_of_unknown_size_is_no_standstill(store: Store) -> None:
    go_on = threading.Event()

    def build(report: Report, _is_suspect: bool) -> Engine:
        while not go_on.wait(0.05):
            report(Phase.DOWNLOADING, 0.0)
        return ScriptedEngine()

    bench = Bench(store, build, stall_s=0.4)
    over = SystemClock().monotonic() + 2
    await wait_until(lambda: bench.task.done() or SystemClock().monotonic() > over, what="five times the limit")
    go_on.set()
    await bench.done()


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
    await forget_marks(store)


async def forget_marks(store: Store) -> None:
    keys = store.pool("default").keys
    await store.redis.delete(*[key async for key in store.redis.scan_iter(f"{keys.starting('*')}")])


@pytest.mark.parametrize("is_suspect", [False, True])
async def test_only_a_load_without_suspicion_that_is_told_to_stop_leaves_no_mark(
    store: Store, tmp_path: Path, is_suspect: bool
) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("one")
    begun, go_on = threading.Event(), threading.Event()

    def build(_report: Report, _is_suspect: bool) -> Engine:
        begun.set()
        assert go_on.wait(20)
        return ScriptedEngine()

    keys = store.pool("default").keys
    if is_suspect:
        await StartMark(store, keys, origin="here one", files=(file,)).begin()
    bench = Bench(store, build, files=(file,))
    await asyncio.to_thread(begun.wait, 20)
    await bench.starting.interrupted()
    assert await StartMark(store, keys, origin="here one", files=(file,)).begin() == is_suspect
    go_on.set()
    await bench.done()


async def test_what_a_closer_look_has_found_is_looked_for_again(store: Store, tmp_path: Path) -> None:
    """A file that kills in its warm-up must not do so at every second start."""
    file = tmp_path / "model.gguf"
    file.write_text("one")
    suspicions: list[bool] = []

    def build(_report: Report, is_suspect: bool) -> Engine:
        suspicions.append(is_suspect)
        raise ModelError("llama.cpp does not survive it")

    await StartMark(store, store.pool("default").keys, origin="here one", files=(file,)).begin()
    for waits in (False, True, False):
        bench = Bench(store, build, files=(file,), waits=waits)
        if waits:
            await bench.lane("failed")
            await bench.starting.interrupted()
            bench.task.cancel()
            await asyncio.wait({bench.task})
        else:
            with pytest.raises(ModelError):
                await bench.task
        await bench.membership.withdraw()
    assert suspicions == [True] * 3
    await forget_marks(store)
