"""One contract for both drivers: real processes of this machine, and real commands of a shell."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from up_harness import is_alive

from paddler.autoscale.driver import Driver, DriverFailed, Ended, Kinship, Order
from paddler.autoscale.local import LocalDriver, agent_command
from paddler.autoscale.shell import ShellDriver
from paddler.clock import SystemClock
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import Overview
from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

AGENT = agent_command("--engine", "scripted", "--log-format", "json")
SLEEPER = (sys.executable, "-I", "-S", "-u", "-c", "import signal; signal.pause()", "agent")
"""What is an agent by its command line, started in no time."""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({!r}, "w").close()
while True:
    signal.pause()
"""
STOP = 'pid=$(cat {}"$PADDLER_NAME") || exit 0; kill $pid; while kill -0 $pid; do sleep 0.05; done; true'

Make = Callable[[tuple[str, ...]], Driver]


def named(name: str, **seen: Any) -> Order:
    return Order(name=name, wanted=1, **seen)


@pytest.fixture(params=["local", "exec"])
async def make(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> AsyncIterator[Make]:
    """A driver whose agents are started by a command, to which their name is added."""
    where = {"PADDLER_REDIS_URL": store.url, "PADDLER_REDIS_PREFIX": store.prefix, "PADDLER_SLOTS": "1"}
    environment = {**os.environ, **where}
    async with AsyncExitStack() as stack:

        def build(command: tuple[str, ...]) -> Driver:
            if request.param == "local":
                made: Driver = LocalDriver(command, environment, SystemClock(), stop_s=20, ends_when_killed=False)
            else:
                line = shlex.join(command)
                pid = shlex.quote(str(tmp_path / "pid."))
                start = f'{line} --name "$PADDLER_NAME" >/dev/null 2>&1 & echo $! >{pid}"$PADDLER_NAME"'
                made = ShellDriver(start, STOP.format(pid), environment, SystemClock(), timeout_s=20, retries=0)
            stack.push_async_callback(made.close)
            return made

        yield build


async def lane_of(store: Store, name: str) -> Lane | None:
    pool = await Overview(store).pool("default")
    return next((lane for lane in pool.lanes if lane.name == name and not lane.is_lost), None)


async def test_an_agent_comes_into_the_pool_and_goes(make: Make, store: Store) -> None:
    """Another driver, as of an autoscaler that was started again, can stop what the first has started."""
    first, second = make(AGENT), make(AGENT)
    await first.start(named("auto-1"))
    lane = await wait_until(lambda: lane_of(store, "auto-1"), timeout_s=60, poll_s=0.05, what="it is in the pool")
    assert lane.desired_slots == 1
    assert first.adopt("auto-1", lane.host, lane.pid) is Kinship.OURS
    assert second.adopt("auto-1", lane.host, lane.pid) is Kinship.OURS
    await second.stop(named("auto-1", agent_id=lane.agent, host=lane.host, pid=lane.pid))
    await wait_until(lambda: not is_alive(lane.pid), what="its process has ended")
    assert await lane_of(store, "auto-1") is None
    await second.stop(named("auto-1"))


async def test_where_there_is_none_nothing_is_to_be_stopped(make: Make) -> None:
    await make(SLEEPER).stop(named("auto-7"))


async def test_two_agents_are_told_apart(make: Make, tmp_path: Path) -> None:
    driver = make(SLEEPER)
    launched = [await driver.start(named(name)) for name in ("auto-1", "auto-2")]
    pids = [one.pid or int((tmp_path / f"pid.auto-{number}").read_text()) for number, one in enumerate(launched, 1)]
    await driver.stop(named("auto-1"))
    assert [is_alive(pid) for pid in pids] == [False, True]
    await driver.stop(named("auto-2"))
    assert not is_alive(pids[1])


# What only processes of this machine have


def local(code: str = "import signal; signal.pause()", *, stop_s: float = 20) -> LocalDriver:
    command = (sys.executable, "-I", "-S", "-c", code, "agent")
    return LocalDriver(command, os.environ, SystemClock(), stop_s=stop_s, ends_when_killed=False)


async def test_a_program_that_is_not_there_is_said() -> None:
    driver = LocalDriver(("/no/python",), os.environ, SystemClock(), stop_s=1, ends_when_killed=False)
    with pytest.raises(DriverFailed, match=r"/no/python: No such file or directory"):
        await driver.start(named("auto-1"))


async def test_the_end_of_a_process_is_noticed() -> None:
    driver = local()
    launched = await driver.start(named("auto-1"))
    found = local()

    def is_found() -> bool:
        return found.adopt("auto-1", launched.host, launched.pid) is Kinship.OURS

    # A program has begun, by what its parent can tell, a moment before /proc has its command line.
    await wait_until(is_found, what="it is ours")
    assert launched.pid is not None
    os.kill(launched.pid, signal.SIGKILL)
    assert await driver.ended.get() == Ended("auto-1", -signal.SIGKILL)
    assert await found.ended.get() == Ended("auto-1", None), "only its parent is told how"
    assert found.adopt("auto-1", launched.host, launched.pid) is Kinship.GONE


async def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    driver = local(STUBBORN.format(str(ready)), stop_s=0.2)
    launched = await driver.start(named("auto-1"))
    await wait_until(ready.exists, what="it ignores SIGTERM")
    await driver.stop(named("auto-1"))
    assert launched.pid is not None
    assert not is_alive(launched.pid)
    assert driver.ended.empty(), "it was stopped"


async def test_another_process_of_that_id_is_not_ours() -> None:
    driver = local()
    launched = await driver.start(named("auto-1"))
    other = local()
    assert other.adopt("auto-2", launched.host, launched.pid) is Kinship.GONE
    assert other.adopt("auto-1", launched.host, os.getpid()) is Kinship.GONE
    assert other.adopt("auto-1", "elsewhere", launched.pid) is Kinship.FOREIGN
    await other.stop(named("auto-1", host=launched.host, pid=launched.pid))
    assert launched.pid is not None
    assert is_alive(launched.pid)
    await driver.stop(named("auto-1"))


async def test_an_agent_may_end_with_its_autoscaler(tmp_path: Path) -> None:
    """`--on-death end`: also when that is killed."""
    code = f"""
import asyncio, os, sys
from paddler.autoscale.driver import Order
from paddler.autoscale.local import LocalDriver
from paddler.clock import SystemClock

async def main():
    driver = LocalDriver({SLEEPER!r}, os.environ, SystemClock(), stop_s=1, ends_when_killed=True)
    print((await driver.start(Order(name="auto-1", wanted=1))).pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    cmdline = Path(f"/proc/{pid}/cmdline")
    await wait_until(lambda: b"launch.py" not in cmdline.read_bytes(), what="the shim has made way")
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await wait_until(lambda: not is_alive(pid), what="it has ended")


# What only commands have


def shell(start: str, stop: str = "true", *, timeout_s: float = 20, retries: int = 0) -> ShellDriver:
    return ShellDriver(start, stop, os.environ, SystemClock(), timeout_s=timeout_s, retries=retries)


async def test_what_a_command_said_last_is_said() -> None:
    with pytest.raises(DriverFailed, match="the start command exited with code 3: quota exceeded"):
        await shell("echo asking; echo quota exceeded >&2; exit 3").start(named("auto-1"))


async def test_a_command_is_told_what_it_is_for(tmp_path: Path) -> None:
    told = tmp_path / "told"
    line = (
        f'echo "$AUTOSCALE_ACTION $PADDLER_NAME $AUTOSCALE_WANTED $AUTOSCALE_AGENT_ID $AUTOSCALE_AGENT_HOST" >>{told}'
    )
    driver = shell(line, line)
    await driver.start(Order(name="auto-1", wanted=3))
    await driver.stop(Order(name="auto-1", wanted=2, agent_id="agent-x", host="gpu1"))
    assert told.read_text().splitlines() == ["start auto-1 3  ", "stop auto-1 2 agent-x gpu1"]


async def test_a_command_that_fails_is_called_again(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    driver = shell(f"echo called >>{calls}; [ $(wc -l <{calls}) -ge 2 ]", retries=1)
    await driver.start(named("auto-1"))
    assert calls.read_text().splitlines() == ["called", "called"]


async def test_a_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    driver = shell(f"trap '' TERM; echo $$ >>{pids}; sleep 1000 & echo $! >>{pids}; wait; sleep 1000", timeout_s=0.5)
    with pytest.raises(DriverFailed, match=r"the start command has not ended within 0\.5 s"):
        await driver.start(named("auto-1"))
    found = [int(line) for line in pids.read_text().split()]
    assert len(found) == 2
    await wait_until(lambda: not any(map(is_alive, found)), what="all of it has ended")


async def test_a_command_may_leave_something_behind(tmp_path: Path) -> None:
    """An agent that holds the command's output open must not hold up its end."""
    left = tmp_path / "left"
    driver = shell(f"sleep 1000 & echo $! >{left}")
    await driver.start(named("auto-1"))
    pid = int(left.read_text())
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)
