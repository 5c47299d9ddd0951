"""Agents as processes of this machine, each in a session of its own: Ctrl-C reaches the autoscaler alone.

They have its stdout and stderr, no pipe of its, so they outlive it when it is killed, and the next one on this host
finds them (`processes.py`). Where they are to end with it even then (`--on-death end`, which `paddler up` wants, as
it must leave nothing behind) the kernel sends them SIGTERM, by way of `paddler/up/launch.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from paddler.autoscale.driver import DriverFailed, Ended, Kinship, Launched, Order
from paddler.autoscale.processes import CAN_FIND, open_agent, open_process, send, wait_for_end
from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.up import launch

log = get_logger(__name__)

POLL_S = 0.2
"""Where the system does not tell of the end of a process."""


class _Child:
    """An agent that we have started. Not by asyncio, whose transport kills its process when the loop goes down."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int | None, clock: Clock) -> None:
        self._process = process
        self._descriptor = descriptor
        self._clock = clock
        self.pid = process.pid

    async def wait(self) -> int | None:
        if self._descriptor is not None:
            await wait_for_end(self._descriptor)
        while self._process.poll() is None:
            await self._clock.sleep(POLL_S)
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        if number is not signal.SIGKILL:
            self._process.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError):  # and whatever it has started
            os.killpg(self.pid, number)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class _Found:
    """One that an earlier autoscaler has."""

    def __init__(self, descriptor: int, pid: int) -> None:
        self._descriptor = descriptor
        self.pid = pid

    async def wait(self) -> int | None:
        await wait_for_end(self._descriptor)
        return None

    def send(self, number: signal.Signals) -> None:
        send(self._descriptor, number)

    def close(self) -> None:
        os.close(self._descriptor)


class LocalDriver:
    """`command` is what an agent is started by, but for its name; `environment` is the agent's. After `stop_s` one that
    has been told to end is killed."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        clock: Clock,
        *,
        stop_s: float,
        ends_when_killed: bool,
    ) -> None:
        self.ends_with_us = True
        self.ended: asyncio.Queue[Ended] = asyncio.Queue()
        self._command = tuple(command)
        self._environment = dict(environment)
        self._clock = clock
        self._stop_s = stop_s
        self._ends_when_killed = ends_when_killed
        self._host = socket.gethostname()
        self._running: dict[str, _Child | _Found] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._is_stopping: set[str] = set()

    async def start(self, order: Order) -> Launched:
        try:
            process = self._spawn(order.name)
        except OSError as error:
            raise DriverFailed(f"{self._command[0]}: {error.strerror}") from error
        self._watch(order.name, _Child(process, open_process(process.pid), self._clock))
        return Launched(process.pid, self._host)

    async def stop(self, order: Order) -> None:
        running = self._running.get(order.name)
        if running is None:
            return
        self._is_stopping.add(order.name)
        running.send(signal.SIGTERM)
        watching = self._watching[order.name]
        await asyncio.wait({watching}, timeout=self._stop_s)
        if not watching.done():
            log.error("an agent does not end, so it is killed", agent=order.name, after_s=self._stop_s)
            running.send(signal.SIGKILL)
            await asyncio.wait({watching}, timeout=self._stop_s)
        if not watching.done():
            raise DriverFailed(f"process {running.pid} could not be killed")

    def adopt(self, name: str, host: str, pid: int | None) -> Kinship:
        if host != self._host or pid is None:
            return Kinship.FOREIGN
        running = self._running.get(name)
        if running is not None:
            # Of two with one name one has ended, and its lease has not.
            return Kinship.OURS if pid == running.pid else Kinship.GONE
        descriptor = open_agent(name, pid)
        if descriptor is None:
            return Kinship.GONE if CAN_FIND else Kinship.FOREIGN
        self._watch(name, _Found(descriptor, pid))
        return Kinship.OURS

    def hurry(self) -> None:
        for name in self._is_stopping & self._running.keys():
            self._running[name].send(signal.SIGTERM)

    async def close(self) -> None:
        for task in self._watching.values():
            task.cancel()
        await asyncio.gather(*self._watching.values(), return_exceptions=True)

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        shim: tuple[str, ...] = ()
        if self._ends_when_killed:
            shim = (sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGTERM)))
        return subprocess.Popen(
            [*shim, *self._command, "--name", name],
            stdin=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )

    def _watch(self, name: str, running: _Child | _Found) -> None:
        self._running[name] = running
        self._watching[name] = asyncio.create_task(self._wait(name, running))

    async def _wait(self, name: str, running: _Child | _Found) -> None:
        try:
            status = await running.wait()
            del self._running[name]
            if name in self._is_stopping:
                self._is_stopping.discard(name)
            else:
                self.ended.put_nowait(Ended(name, status))
        finally:
            running.close()


def agent_command(*arguments: str) -> tuple[str, ...]:
    # -P: a folder named `workers` in the working directory must not be taken for ours.
    return (sys.executable, "-P", "-m", "paddler", "agent", *arguments)
