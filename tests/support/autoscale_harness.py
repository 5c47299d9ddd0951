"""`paddler autoscale` as a process, and what it has done as the pool tells it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from story_harness import Command

from paddler.autoscale.record import Record, Records
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import Overview
from paddler.store.client import Store
from paddler.testing.waiting import wait_until

NEVER_MS = "3600000"
"""A poll that comes after the test: whatever is seen before was not seen by it."""
STOP_S = 30.0


class Scaled:
    """A pool that autoscalers look after; all that is left of them is ended with the test."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.records = Records(store, "default")
        self._folder = folder
        self._started: list[Command] = []

    def start(self, *flags: str) -> Command:
        """An autoscaler with agents of one slot, that never polls and keeps nobody who is not needed for a moment.
        `flags` end with those of its agents."""
        log = self._folder / f"autoscale-{len(self._started)}.log"
        where = ("--redis-url", self.store.url, "--redis-prefix", self.store.prefix)
        own = ("--slots", "1", "--cooldown", "300", "--poll-interval", NEVER_MS)
        command = Command(log, "autoscale", *where, *own, *flags)
        self._started.append(command)
        return command

    async def acting(self, *flags: str) -> Command:
        command = self.start(*flags)
        await command.logged("acts for the pool")
        return command

    async def lanes(self) -> list[Lane]:
        pool = await Overview(self.store).pool("default")
        return [lane for lane in pool.lanes if not lane.is_lost]

    async def names(self, state: str | None = None) -> list[str]:
        return [lane.name for lane in await self.lanes() if state in (None, lane.state)]

    async def has(self, *names: str, state: str | None = None) -> None:
        async def is_so() -> bool:
            return await self.names(state) == list(names)

        await wait_until(is_so, timeout_s=60, poll_s=0.05, what=f"the agents are {names}, {state}")

    async def record(self, is_so: Callable[[Record], bool], what: str) -> Record:
        async def find() -> Record | None:
            record = await self.records.read()
            return record if record is not None and is_so(record) else None

        return await wait_until(find, timeout_s=60, poll_s=0.05, what=what)

    async def close(self) -> None:
        for command in self._started:
            if command.is_running:
                command.process.send_signal(signal.SIGTERM)
        for command in self._started:
            await asyncio.to_thread(command.process.wait, STOP_S)


@asynccontextmanager
async def scaled_pool(store: Store, folder: Path) -> AsyncGenerator[Scaled]:
    scaled = Scaled(store, folder)
    try:
        yield scaled
    finally:
        await scaled.close()
