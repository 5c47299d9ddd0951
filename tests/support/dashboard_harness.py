"""A fleet of real processes to be watched, whose balancer dies and comes back, and the dashboard's screen as text."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from secure_servers import free_port
from story_harness import SCRIPTED, Command, Heard, Queue, open_queue, openai_client
from textual.pilot import Pilot

from paddler.clock import SystemClock
from paddler.dashboard.address import Access
from paddler.dashboard.app import Dashboard
from paddler.dashboard.client import Management
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter

SIZE = (80, 24)
LEASE_MS = 10_000
SLOW = (*SCRIPTED, "--slots", "2", "--scripted-step", "20")
"""An agent on which a request of hundreds of tokens runs until it is stopped."""


class WatchedFleet:
    """One balancer, always at the same addresses, and agents."""

    def __init__(self, url: str, prefix: str, folder: Path) -> None:
        self.prefix = prefix
        self._where = ("--redis-url", url, "--redis-prefix", prefix)
        self._url = url
        self._folder = folder
        self._ports = free_port(), free_port()
        self._started: list[Command] = []
        self._agents: list[Command] = []
        self._balancer: Command | None = None

    @property
    def address(self) -> str:
        """Of the management service."""
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def inference_url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    async def start_balancer(self) -> None:
        inference, management = (f"127.0.0.1:{port}" for port in self._ports)
        waiting = ("--buffered-request-timeout", "60000")
        self._balancer = self._start(
            "balancer", "--inference-addr", inference, "--management-addr", management, *waiting
        )
        await self._balancer.logged("listening", service="management")

    def kill_balancer(self) -> None:
        assert self._balancer is not None
        self._balancer.kill()

    async def agent(self, name: str, *flags: str) -> Command:
        """It has the starter model unless `flags` say else."""
        engine = () if flags[:2] == SCRIPTED else ("--model", str(find_starter()), "--slots", "2")
        agent = self._start("agent", "--name", name, "--lease", str(LEASE_MS), "--grace", "0", *engine, *flags)
        self._agents.append(agent)
        await agent.logged("registered")
        return agent

    def _start(self, *arguments: str) -> Command:
        command = Command(self._folder / f"{len(self._started)}-{arguments[0]}.log", *arguments, *self._where)
        self._started.append(command)
        return command

    @asynccontextmanager
    async def queue(self) -> AsyncGenerator[Queue]:
        async with open_queue(self._url, self.prefix) as queue:
            yield queue

    def stop_agents(self) -> None:
        _end(self._agents)
        self._agents.clear()

    def close(self) -> None:
        _end(self._started)


def _end(commands: Iterable[Command]) -> None:
    running = [command for command in commands if command.is_running]
    for command in running:
        command.process.terminate()
    for command in running:
        command.process.wait(20)


class Screen:
    """What a user of the dashboard sees and types."""

    def __init__(self, app: Dashboard, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    @property
    def lines(self) -> list[str]:
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        assert len(strips) == height
        lines = ["".join(segment.text for segment in strip) for strip in strips]
        assert {len(line) for line in lines} <= {width}, "a line is longer than the screen is wide"
        return [line.rstrip() for line in lines]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line(self, word: str) -> str:
        """The first line with this word; empty if there is none."""
        return next((line for line in self.lines if word in line), "")

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def type(self, text: str) -> None:
        names = {"=": "equals_sign", "-": "minus", "/": "slash", " ": "space"}
        await self.press(*(names.get(one, one) for one in text))

    async def shows(self, *words: str, without: str = "") -> None:
        """Wait until it has all of them."""

        def is_so() -> bool:
            text = self.text
            return all(word in text for word in words) and not (without and without in text)

        try:
            await wait_until(is_so, timeout_s=60, poll_s=0.05, what=f"{words} on the screen, without {without!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None


@asynccontextmanager
async def watching(access: Access, *, pool: str = "default", size: tuple[int, int] = SIZE) -> AsyncGenerator[Screen]:
    """The dashboard on a terminal of this size."""
    management = Management(access)
    app = Dashboard(management, access.shown, pool, SystemClock())
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            yield Screen(app, pilot)
    finally:
        await management.close()


@asynccontextmanager
async def asking(
    fleet: WatchedFleet, number: int, text: str = "[[tokens=2000]]"
) -> AsyncGenerator[list[asyncio.Task[Heard]]]:
    """So many clients that listen to a long answer; given up at the end, if it has not been stopped before."""
    async with openai_client(fleet.inference_url) as client:
        tasks = [asyncio.create_task(Heard().ask(client, text)) for _ in range(number)]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    async with fleet.queue() as queue:
        await wait_until(queue.is_empty, what="nothing runs any more")


def dashboard_command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "paddler", "dashboard", *arguments]
