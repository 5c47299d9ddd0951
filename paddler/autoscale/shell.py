"""Agents by commands of the operator's: any cloud, any host. `/bin/sh` runs them.

A command is called again after it failed or took too long, and by the next autoscaler for what this one had begun: it
has to do no harm when what it is to do is done already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Mapping

from paddler.autoscale.driver import DriverFailed, Ended, Kinship, Launched, Order
from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.up.output import LineReader
from paddler.up.supervisor import describe

log = get_logger(__name__)

FIRST_RETRY_S = 1.0
TERM_S = 2.0
"""Between SIGTERM and SIGKILL for a command that takes too long."""
MAX_READ_BYTES = 64 * 1024


class ShellDriver:
    """`environment` is that of the commands; `retries` is how often one that failed is called again."""

    def __init__(
        self,
        start_command: str,
        stop_command: str,
        environment: Mapping[str, str],
        clock: Clock,
        *,
        timeout_s: float,
        retries: int,
    ) -> None:
        self.ends_with_us = False
        self.ended: asyncio.Queue[Ended] = asyncio.Queue()
        self._start_command = start_command
        self._stop_command = stop_command
        self._environment = dict(environment)
        self._clock = clock
        self._timeout_s = timeout_s
        self._retries = retries

    async def start(self, order: Order) -> Launched:
        await self._run("start", self._start_command, order)
        return Launched()

    async def stop(self, order: Order) -> None:
        await self._run("stop", self._stop_command, order)

    def adopt(self, name: str, host: str, pid: int | None) -> Kinship:
        del name, host, pid
        return Kinship.OURS

    def hurry(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _run(self, action: str, command: str, order: Order) -> None:
        delay = FIRST_RETRY_S
        for retries_left in range(self._retries, -1, -1):
            try:
                await self._run_once(action, command, order)
            except DriverFailed as error:
                if not retries_left:
                    raise
                log.warning("a command failed, trying again", action=action, agent=order.name, why=str(error))
                await self._clock.sleep(delay)
                delay *= 2
            else:
                return

    async def _run_once(self, action: str, command: str, order: Order) -> None:
        output = _Output(LineReader(lambda line: log.info(line, action=action, agent=order.name)))
        try:
            process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", command),
                stdin=DEVNULL,
                stdout=output.inlet,
                stderr=STDOUT,
                env={**self._environment, **variables(action, order)},
                # What a shell started ends with it.
                start_new_session=True,
            )
            output.begin()
        except OSError as error:
            output.close()
            raise DriverFailed(f"/bin/sh: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await process.wait()
        except TimeoutError:
            await self._end(process)
            raise DriverFailed(f"the {action} command has not ended within {self._timeout_s:g} s") from None
        except BaseException:
            _signal_group(process.pid, signal.SIGKILL)
            raise
        finally:
            output.close()
        if status:
            said = f": {output.last_line}" if output.last_line else ""
            raise DriverFailed(f"the {action} command {describe(status)}{said}")

    async def _end(self, process: Process) -> None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_S):
                await process.wait()
        except TimeoutError:
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()


def variables(action: str, order: Order) -> dict[str, str]:
    """What a command is told beside the environment that all share; `PADDLER_NAME` is the agent's `--name`."""
    told = {
        "PADDLER_NAME": order.name,
        "AUTOSCALE_ACTION": action,
        "AUTOSCALE_WANTED": str(order.wanted),
        "AUTOSCALE_AGENT_ID": order.agent_id,
        "AUTOSCALE_AGENT_HOST": order.host,
        "AUTOSCALE_AGENT_PID": "" if order.pid is None else str(order.pid),
    }
    return {name: value.replace("\0", "") for name, value in told.items()}


class _Output:
    """What a command says. A pipe of our own: asyncio waits with the end of a process for that of its pipe, which an
    agent that was left in the background has, perhaps for days."""

    def __init__(self, lines: LineReader) -> None:
        self._lines = lines
        self._outlet, self.inlet = os.pipe()
        os.set_blocking(self._outlet, False)
        self._is_reading = False

    @property
    def last_line(self) -> str:
        return self._lines.last_lines[-1] if self._lines.last_lines else ""

    def begin(self) -> None:
        """The command has its end of it."""
        os.close(self.inlet)
        self.inlet = -1
        self._is_reading = True
        asyncio.get_running_loop().add_reader(self._outlet, self._read)

    def close(self) -> None:
        """What has been said so far is read; what is said from now on finds nobody."""
        if self.inlet >= 0:
            os.close(self.inlet)
        while self._is_reading and self._read():
            pass
        if self._is_reading:
            asyncio.get_running_loop().remove_reader(self._outlet)
        self._lines.close()
        os.close(self._outlet)

    def _read(self) -> bool:
        """Whether there may be more of it now."""
        try:
            data = os.read(self._outlet, MAX_READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._outlet)
            self._is_reading = False
        self._lines.feed(data)
        return self._is_reading


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
