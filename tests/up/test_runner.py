"""Real children: output, restarts, signals, and that nothing is left behind, whatever happens to the supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from up_harness import SLEEPER, STUBBORN, descendants, is_alive, python_spec, small_runner

from paddler.testing.waiting import wait_until
from paddler.up import launch
from paddler.up.runner import Runner
from paddler.up.supervisor import FIRST_DELAY_S, STAGE_S, Spec

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(runner: Runner, *names: str) -> AsyncGenerator[asyncio.Task[str | None]]:
    """Run until the children of these names are up; stop what the test has not stopped."""
    task = asyncio.create_task(runner.run())
    try:
        await wait_until(lambda: task.done() or runner.pids.keys() >= set(names), what=f"{names} up")
        yield task
    finally:
        if not task.done():
            runner.stop()
            runner.stop()
        await task


async def test_a_killed_child_comes_back_and_it_is_said() -> None:
    runner, shown = small_runner(python_spec("a", SLEEPER), python_spec("b", SLEEPER))
    async with running(runner, "a", "b"):
        first, other = runner.pids["a"], runner.pids["b"]
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: runner.pids.get("a", first) != first, what="a started again")
        assert runner.pids["b"] == other
        assert f"a was killed by SIGKILL; starting it again in {FIRST_DELAY_S:g} s" in shown.getvalue()


async def test_what_a_child_prints_is_shown_to_the_last_line() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.stdout.write('no newline'); sys.exit(2)"
    runner, shown = small_runner(python_spec("a", code))
    async with running(runner, "a") as task:
        failure = await task
    assert failure is not None
    assert failure.splitlines()[0] == "a exited with code 2 again; stopping."
    assert {"out", "err", "no newline"} <= set(failure.splitlines())
    assert shown.getvalue().count("no newline") == 3  # twice from the child, once in the explanation


async def test_stopping_is_quick_when_children_stop() -> None:
    runner, _ = small_runner(python_spec("a", SLEEPER, stop_stage=0), python_spec("b", SLEEPER, stop_stage=1))
    async with running(runner, "a", "b") as task:
        pids = list(runner.pids.values())
        runner.stop()
        began = time.monotonic()
        assert await task is None
    assert time.monotonic() - began < STAGE_S
    assert not any(map(is_alive, pids))


async def test_a_child_that_ignores_sigterm_is_killed_in_time() -> None:
    runner, shown = small_runner(python_spec("a", STUBBORN))
    async with running(runner, "a") as task:
        pid = runner.pids["a"]
        await wait_until(lambda: "a  | up" in shown.getvalue())
        runner.stop()
        began = time.monotonic()
        assert await task is None
    assert STAGE_S <= time.monotonic() - began < STAGE_S + 1
    assert not is_alive(pid)
    assert "killing a, which did not stop" in shown.getvalue()


async def test_asked_twice_it_kills_at_once() -> None:
    runner, shown = small_runner(python_spec("a", STUBBORN))
    async with running(runner, "a") as task:
        await wait_until(lambda: "a  | up" in shown.getvalue())
        runner.stop()
        runner.stop()
        began = time.monotonic()
        await task
    assert time.monotonic() - began < 1


async def test_ctrl_c_stops_grandchildren_too() -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {SLEEPER}"
    runner, _ = small_runner(python_spec("a", code))
    async with running(runner, "a") as task:
        pids = await wait_until(lambda: descendants(runner.pids["a"]))
        await wait_until(lambda: is_alive(pids[0]))
        os.kill(os.getpid(), signal.SIGINT)
        assert await task is None
    await wait_until(lambda: not any(map(is_alive, pids)), what="grandchildren gone")


async def test_children_wait_for_the_probe_of_the_child_they_await() -> None:
    ready = asyncio.Event()
    first, second = python_spec("a", SLEEPER, stop_stage=1), python_spec("b", SLEEPER, awaits="a")

    async def probe() -> None:
        await ready.wait()

    runner, shown = small_runner(first, second, probes={"a": probe})
    async with running(runner, "a"):
        await wait_until(lambda: "a  | up" in shown.getvalue())
        assert list(runner.pids) == ["a"]
        ready.set()
        await wait_until(lambda: "b" in runner.pids)


async def test_a_command_that_cannot_be_executed_is_explained() -> None:
    runner, shown = small_runner(Spec(name="a", command=("/no/such/program",)))
    async with running(runner, "a"):
        await wait_until(lambda: "a exited with code 126" in shown.getvalue())
        assert "cannot execute /no/such/program: No such file or directory" in shown.getvalue()


ORPHANS = """
import asyncio, os, sys
sys.path[:0] = {paths!r}
from up_harness import SLEEPER, STUBBORN, python_spec, small_runner
runner, shown = small_runner(python_spec("a", SLEEPER), python_spec("b", STUBBORN))
async def main():
    task = asyncio.create_task(runner.run())
    while shown.getvalue().count("| up") < 2:
        await asyncio.sleep(0.01)
    print(*runner.pids.values(), flush=True)
    await task
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_no_signal_to_the_supervisor_leaves_an_orphan(number: signal.Signals) -> None:
    code = ORPHANS.format(paths=[str(Path(__file__).parents[1] / "support")])
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        process.send_signal(number)
        await wait_until(lambda: not any(map(is_alive, pids)), timeout_s=20, what="children gone")
        assert process.wait(20) == (-9 if number is signal.SIGKILL else 0)
    finally:
        process.kill()
        process.communicate()
        for pid in filter(is_alive, pids):  # the test has failed; its children end anyway
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="there the kernel does not tell of a parent's death")
async def test_a_child_whose_parent_died_before_it_could_ask_does_not_start() -> None:
    arguments = [sys.executable, "-I", "-S", launch.__file__, "1", "9", "/bin/echo", "started"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stdout) == (launch.EX_OSERR, "")
