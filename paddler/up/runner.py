"""Acts on what the supervisor decides: starts processes, passes their output on, sends signals, keeps time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import assert_never

from msgspec import Struct

from paddler.clock import Clock
from paddler.up import launch
from paddler.up.output import LineReader, Output
from paddler.up.supervisor import Effect, Say, Signal, Spec, Start, Supervisor

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_OUTPUT_S = 0.3
MAX_READ_BYTES = 64 * 1024


class Exited(Struct, frozen=True):
    name: str
    status: int
    last_lines: tuple[str, ...]


class Ready(Struct, frozen=True):
    name: str


class Stop(Struct, frozen=True):
    pass


Event = Exited | Ready | Stop


class Runner:
    """Runs a set of children until it is told to stop or the supervisor gives up.

    `probes` are coroutines that return once that child is ready for the first time; a child that others await needs
    one. `environment` is the children's. One task owns the supervisor's state; all else reaches it through a queue.
    """

    def __init__(
        self,
        specs: list[Spec],
        *,
        environment: Mapping[str, str],
        output: Output,
        clock: Clock,
        probes: Mapping[str, Callable[[], Awaitable[None]]],
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._supervisor = Supervisor(specs)
        self._environment = dict(environment)
        self._output = output
        self._clock = clock
        self._probes = probes
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._pids: dict[str, int] = {}
        self._group: asyncio.TaskGroup | None = None
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running children."""
        return dict(self._pids)

    def stop(self) -> None:
        """Begin to stop; called again, kill what is left."""
        self._events.put_nowait(Stop())

    async def run(self) -> str | None:
        """Return when every child is gone: None when asked to stop, else why the supervisor gave up."""
        loop = asyncio.get_running_loop()
        # Under nohup SIGHUP is ignored, and stays so. (A shell's background jobs ignore SIGINT, which we still obey.)
        has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        handled = [number for number in STOP_SIGNALS if not (has_nohup and number is signal.SIGHUP)]
        for number in handled:
            loop.add_signal_handler(number, self.stop)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                probing = [group.create_task(self._probe(name, probe)) for name, probe in self._probes.items()]
                await self._perform(self._supervisor.on_begin(self._clock.monotonic()))
                while not self._supervisor.is_done:
                    await self._perform(self._decide(await self._next_event()))
                for task in [*probing, *self._watching]:
                    task.cancel()
        finally:
            for pid in self._pids.values():
                _signal_group(pid, signal.SIGKILL)
            for number in handled:
                loop.remove_signal_handler(number)
        return self._supervisor.failure

    async def _next_event(self) -> Event | None:
        """The next event, or None when it is time for `on_time`."""
        due = self._supervisor.next_time()
        if due is None:
            return await self._events.get()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - self._clock.monotonic())):
                return await self._events.get()
        return None

    def _decide(self, event: Event | None) -> list[Effect]:
        now = self._clock.monotonic()
        match event:
            case None:
                return self._supervisor.on_time(now)
            case Ready(name):
                return self._supervisor.on_ready(name, now)
            case Exited(name, status, last_lines):
                self._pids.pop(name, None)
                return self._supervisor.on_exit(name, status, now, last_lines)
            case Stop():
                if not self._supervisor.is_stopping:
                    self._output.say("stopping; once more to kill")
                return self._supervisor.on_stop(now)
            case _:
                assert_never(event)

    async def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Start(name):
                    await self._start(self._specs[name])
                case Signal(name, number):
                    if name in self._pids:
                        _signal_group(self._pids[name], number)
                case Say(text, is_error):
                    self._output.say(text, is_error=is_error)
                case _:
                    assert_never(effect)

    async def _start(self, spec: Spec) -> None:
        shim = (sys.executable, "-I", "-S", str(Path(launch.__file__)), str(os.getpid()), str(int(spec.death_signal)))
        try:
            process = await asyncio.create_subprocess_exec(
                *shim,
                *spec.command,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                env=self._environment,
                # A group of its own: Ctrl-C reaches us alone, and a signal to the group reaches grandchildren too.
                start_new_session=True,
                pass_fds=spec.keep_fds,
            )
        except OSError as error:
            line = f"cannot start: {error.strerror}"
            self._output.show(spec.name, line)
            self._events.put_nowait(Exited(spec.name, launch.EX_OSERR, (line,)))
            return
        self._pids[spec.name] = process.pid
        assert self._group is not None
        task = self._group.create_task(self._watch(spec, process))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _watch(self, spec: Spec, process: Process) -> None:
        lines = LineReader(lambda line: self._output.show(spec.name, line), spec.hidden)
        reading = asyncio.create_task(_read(process, lines))
        try:
            status = await process.wait()
            # Grandchildren may hold the pipe open, so its end is not waited for long.
            await asyncio.wait([reading], timeout=LAST_OUTPUT_S)
        finally:
            reading.cancel()
        _signal_group(process.pid, signal.SIGKILL)  # whatever the child started and left
        lines.close()
        self._events.put_nowait(Exited(spec.name, status, tuple(lines.last_lines)))

    async def _probe(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        await probe()
        self._events.put_nowait(Ready(name))


async def _read(process: Process, lines: LineReader) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(MAX_READ_BYTES):
        lines.feed(data)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
