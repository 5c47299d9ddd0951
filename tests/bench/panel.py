"""How smooth the panel is with a large fleet in view: `make bench-panel`.

5,000 requests that wait and 500 agents that work, behind a real balancer; Chromium opens the pages Fleet and Requests,
looks on for some seconds and scrolls. Told of each: the long tasks of the page (over 50 ms, in which it answers to
nothing), the times between frames, what the live feed brings, and the CPU time of the balancer, of Valkey and of the
browser. Without a GPU the browser paints on the same cores as everything else, so its frames are slower than with one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import psutil
from msgspec import Struct
from playwright.async_api import Browser, Page, async_playwright

from paddler.testing.waiting import wait_until
from tests.bench.panel_fleet import PanelFleet, panel_fleet

WATCH = Path(__file__).with_name("panel_watch.js")
READY = {"fleet": ".virtual-row", "requests": ".virtual-row"}
SCROLLED = {"fleet": ".virtual", "requests": ".virtual"}
STEP_PX = 60


class Seen(Struct, kw_only=True):
    """Of one stretch. `frame_ms` are times between frames; a task is long from 50 ms on."""

    page: str
    what: str
    seconds: float
    long_tasks: int
    long_tasks_ms: float
    longest_task_ms: float
    frame_ms_p50: float
    frame_ms_p99: float
    frames_per_s: float
    feed_bytes_per_s: float
    cpu: dict[str, float]


def at(values: list[float], part: float) -> float:
    """The nearest-rank quantile; 0 of nothing."""
    ordered = sorted(values) or [0.0]
    return round(ordered[math.ceil(part * len(ordered)) - 1], 1)


class Watched:
    """A page with its feed counted, and the processes around it."""

    def __init__(self, page: Page, processes: dict[str, psutil.Process]) -> None:
        self.page = page
        self._processes = processes
        self._feeds: set[str] = set()
        self.num_bytes = 0

    async def start(self) -> None:
        session: Any = await self.page.context.new_cdp_session(self.page)
        session.on("Network.requestWillBeSent", self._on_request)
        session.on("Network.dataReceived", self._on_data)
        await session.send("Network.enable")
        await self.page.add_init_script(path=WATCH)

    def _on_request(self, event: dict[str, Any]) -> None:
        if "/panel/api/live" in event["request"]["url"]:
            self._feeds.add(event["requestId"])

    def _on_data(self, event: dict[str, Any]) -> None:
        if event["requestId"] in self._feeds:
            self.num_bytes += event["dataLength"]

    def cpu(self) -> dict[str, float]:
        """Seconds; those of the browser are of all its processes."""
        used: dict[str, float] = {}
        for name, process in self._processes.items():
            family = [process, *(process.children(recursive=True) if name == "browser" else [])]
            times = [one.cpu_times() for one in family if one.is_running()]
            used[name] = sum(one.user + one.system for one in times)
        return used

    @contextlib.asynccontextmanager
    async def measured(self, page: str, what: str, into: list[Seen]) -> AsyncGenerator[None]:
        if await self.page.evaluate("typeof paddlerBench") == "function":
            await self.page.evaluate("paddlerBench()")
        before, num_bytes, began = self.cpu(), self.num_bytes, time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        seen: dict[str, list[float]] = await self.page.evaluate("paddlerBench()")
        tasks, frames = seen["tasks"], seen["frames"]
        into.append(
            Seen(
                page=page,
                what=what,
                seconds=round(seconds, 1),
                long_tasks=len(tasks),
                long_tasks_ms=round(sum(tasks)),
                longest_task_ms=round(max(tasks, default=0)),
                frame_ms_p50=at(frames, 0.5),
                frame_ms_p99=at(frames, 0.99),
                frames_per_s=round(len(frames) / seconds, 1),
                feed_bytes_per_s=round((self.num_bytes - num_bytes) / seconds),
                cpu={name: round((spent - before[name]) / seconds, 2) for name, spent in self.cpu().items()},
            )
        )


async def look(watched: Watched, url: str, name: str, seconds: float, into: list[Seen]) -> None:
    page = watched.page
    async with watched.measured(name, "open", into):
        await page.goto(f"{url}/#/{name}")
        await page.reload()  # another hash alone loads nothing
        await page.locator(READY[name]).first.wait_for(timeout=60_000)
        await asyncio.sleep(1)
    async with watched.measured(name, "look on", into):
        await asyncio.sleep(seconds)
    async with watched.measured(name, "scroll", into):
        moved = await page.evaluate(
            "([where, step, s]) => paddlerScroll(where, step, s)", [SCROLLED[name], STEP_PX, seconds]
        )
    assert moved["moved"] > 0, f"{name} did not scroll"


async def search(watched: Watched, into: list[Seen]) -> None:
    """Typing into the search, which looks at all requests at each letter."""
    box = watched.page.get_by_label("Search")
    async with watched.measured("requests", "search", into):
        await box.press_sequentially("tenant-07 smol", delay=60)
        await asyncio.sleep(0.5)
    await box.fill("")


@contextlib.asynccontextmanager
async def browser() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        # Chromium's sandbox does not run as root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            yield started
        finally:
            await started.close()


def browser_process() -> psutil.Process:
    """The one that this process has started last, by way of Playwright's driver."""
    found = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    return min(found, key=lambda one: len(one.parents()))


async def measure(
    *, agents: int, slots: int, waiting: int, seconds: float, ends_per_s: float, frames_per_s: float
) -> list[Seen]:
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as folder:
        async with (
            panel_fleet(Path(folder), agents=agents, slots=slots, waiting=waiting) as fleet,
            browser() as started,
        ):
            moving = asyncio.create_task(fleet.crowd.move(ends_per_s=ends_per_s, frames_per_s=frames_per_s))
            try:
                await _look_at_all(fleet, started, seconds, seen)
            finally:
                moving.cancel()
                await asyncio.gather(moving, return_exceptions=True)
    return seen


async def _look_at_all(fleet: PanelFleet, started: Browser, seconds: float, seen: list[Seen]) -> None:
    assert fleet.valkey.process is not None
    processes = {
        "balancer": psutil.Process(fleet.balancer.pid),
        "valkey": psutil.Process(fleet.valkey.process.pid),
        "browser": browser_process(),
    }
    page = await started.new_page(viewport={"width": 1280, "height": 900})
    watched = Watched(page, processes)
    await watched.start()
    for name in READY:
        await look(watched, fleet.url, name, seconds, seen)
    await search(watched, seen)
    await wait_until(lambda: fleet.crowd.num_ended > 0, what="requests end meanwhile")


def table(seen: list[Seen]) -> str:
    names = ["page", "", "s", "long tasks", "longest, ms", "frame p50, ms", "p99", "frames/s", "feed, kB/s"]
    names += ["CPU: balancer", "Valkey", "browser"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for one in seen:
        cells: list[Any] = [one.page, one.what, one.seconds, one.long_tasks, f"{one.longest_task_ms:g}"]
        cells += [one.frame_ms_p50, one.frame_ms_p99, one.frames_per_s, round(one.feed_bytes_per_s / 1000, 1)]
        cells += [one.cpu["balancer"], one.cpu["valkey"], one.cpu["browser"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--slots", type=int, default=2, help="of each agent, all of them busy")
    parser.add_argument("--waiting", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0, help="for how long each page is looked at and scrolled")
    parser.add_argument("--ends", type=float, default=20.0, help="requests/s that end, and as many that come")
    parser.add_argument("--frames", type=float, default=400.0, help="frames/s that running requests say")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seen = asyncio.run(
        measure(
            agents=asked.agents,
            slots=asked.slots,
            waiting=asked.waiting,
            seconds=asked.seconds,
            ends_per_s=asked.ends,
            frames_per_s=asked.frames,
        )
    )
    print(msgspec.json.encode(seen).decode() if asked.json else table(seen))


if __name__ == "__main__":
    main()
