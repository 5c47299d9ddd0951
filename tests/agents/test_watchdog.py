"""A step that does not come back: interrupted, and then the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fleet_harness import Fleet
from frozen_thread import FrozenThread, busiest_thread
from story_harness import Command

from paddler.clock import SystemClock
from paddler.engine import Event, Job
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter
from paddler.wire.agent import Generate, Sampling
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens
from workers.agent.engine_thread import EngineThread
from workers.agent.serving import EXIT_HANGS
from workers.agent.watchdog import EngineHangs, Watchdog

pytestmark = pytest.mark.anyio

LIMIT_S = 0.2
ENDLESS = Sampling(ignore_eos=True)


class Bench:
    """A scripted engine on its thread, watched; `gave_up` counts what the watchdog does before the end."""

    def __init__(self, engine: ScriptedEngine, limit_s: float = LIMIT_S) -> None:
        self.events: list[Event] = []
        self.gave_up = 0
        self.engine = engine
        self.thread = EngineThread(engine, self.events.extend)
        self.watchdog = Watchdog(self.thread, SystemClock(), self._give_up, limit_s)
        self.thread.start_thread()

    async def _give_up(self) -> None:
        self.gave_up += 1

    def ask(self, prompt: str) -> None:
        self.thread.start(Job(request_id=prompt, payload=Generate(prompt=prompt)))

    async def finished(self, prompt: str) -> None:
        await wait_until(lambda: any(type(one).__name__ == "Done" and one.request_id == prompt for one in self.events))


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.engine.interrupt()
        bench.thread.stop(0.5)


async def test_a_step_that_can_be_interrupted_is_and_work_goes_on(benches: list[Bench]) -> None:
    bench = Bench(ScriptedEngine())
    benches.append(bench)
    bench.ask("warm [[tokens=3]]")
    await bench.finished("warm [[tokens=3]]")
    watching = asyncio.create_task(bench.watchdog.run())
    bench.ask("slow [[stall=60]] [[tokens=5]]")
    await bench.finished("slow [[stall=60]] [[tokens=5]]")
    assert not watching.done()
    assert bench.gave_up == 0
    watching.cancel()


async def test_one_that_cannot_is_the_end(benches: list[Bench]) -> None:
    bench = Bench(ScriptedEngine(is_deadly=True))
    benches.append(bench)
    bench.ask("warm [[tokens=3]]")
    await bench.finished("warm [[tokens=3]]")
    bench.ask("deaf [[hang]] [[tokens=5]]")
    with pytest.raises(EngineHangs, match="does not come back when interrupted"):
        await bench.watchdog.run()
    assert bench.gave_up == 1


class Repeating(ScriptedEngine):
    """Interrupted, a step of llama.cpp has no effect and is done again."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = threading.Event()

    def step(self) -> list[Event]:
        self.woken.wait(60)
        self.woken.clear()
        return []

    def interrupt(self) -> None:
        self.woken.set()


async def test_a_step_that_hangs_again_when_repeated_is_the_end(benches: list[Bench]) -> None:
    bench = Bench(Repeating(), limit_s=0.1)
    benches.append(bench)
    bench.ask("hello")
    with pytest.raises(EngineHangs, match="again, after it was interrupted"):
        await bench.watchdog.run()


async def test_slow_steps_and_idle_time_are_no_hang(benches: list[Bench]) -> None:
    bench = Bench(ScriptedEngine(step_s=LIMIT_S / 3))
    benches.append(bench)
    watching = asyncio.create_task(bench.watchdog.run())
    bench.ask("slow [[tokens=20]]")
    await bench.finished("slow [[tokens=20]]")
    over = SystemClock().monotonic() + 3 * LIMIT_S
    await wait_until(lambda: SystemClock().monotonic() > over, what="nothing to do for a while")
    assert not watching.done()
    watching.cancel()


async def test_zero_is_never(benches: list[Bench]) -> None:
    bench = Bench(ScriptedEngine(), limit_s=0)
    benches.append(bench)
    watching = asyncio.create_task(bench.watchdog.run())
    bench.ask("slow [[stall=1]] [[tokens=3]]")
    await bench.finished("slow [[stall=1]] [[tokens=3]]")
    assert not watching.done()
    watching.cancel()


@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform != "linux", reason="stops a thread by ptrace")
async def test_a_decode_of_llama_cpp_that_hangs_ends_its_process_and_its_request_goes_on(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The thread of the engine is stopped in the midst of `llama_decode`, where no interruption reaches it."""
    gateway = await fleet.gateway(buffered_request_timeout_ms=120_000)
    how = ("--model", str(find_starter()), "--slots", "1", "--threads", "1", "--context-size", "4096")
    where = ("--redis-url", fleet.url, "--redis-prefix", fleet.prefix)
    hung = Command(tmp_path / "hung.log", "agent", "--hang-timeout", "1500", *how, *where)
    frozen: FrozenThread | None = None
    try:
        reply = await gateway.submit("default", Generate(prompt="Once upon a time", max_tokens=3000, sampling=ENDLESS))
        assert await reply.wait_opened(60)
        thread = await busiest_thread(hung.process.pid)
        for _ in range(3):
            frozen = FrozenThread(thread)
            with contextlib.suppress(AssertionError):
                await wait_until(partial(is_over, hung, frozen), timeout_s=20, what="it gives up")
                break
            # It was stopped where it has the interpreter, so that no other thread of Python goes on.
            frozen.thaw()
        assert hung.process.returncode == EXIT_HANGS, hung.text
        assert "does not come back when interrupted" in hung.text
        assert "Thread 0x" in hung.text, "where its threads stood"
        await fleet.agent(slots=1)
        frames = [frame async for frame in reply]
        first, second = [at for at, frame in enumerate(frames) if isinstance(frame, Opened)]
        assert any(isinstance(frame, Tokens) for frame in frames[first:second]), "it goes on, and does not begin anew"
        [end] = [frame for frame in frames if isinstance(frame, Finished)]
        assert end.reason in (FinishReason.LENGTH, FinishReason.STOP)
    finally:
        hung.process.kill()
        await wait_until(partial(is_over, hung, frozen), what="it is gone")


def is_over(command: Command, frozen: FrozenThread | None) -> bool:
    if frozen is not None:
        frozen.bury()
    return command.process.poll() is not None
