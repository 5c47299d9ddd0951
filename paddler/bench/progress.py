"""The bar while it runs, on stderr, so that stdout has the figures alone."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from paddler.bench.run import Load, Runner
from paddler.bench.samples import Outcome
from paddler.clock import Clock

REFRESH_S = 0.5
"""A picture takes some milliseconds, which the times of tokens would have in them if it came often."""


class Bar(AbstractContextManager["Bar"]):
    """Nothing where stderr is no terminal."""

    def __init__(self, load: Load, num_known: int | None, clock: Clock) -> None:
        """`num_known` is how many requests there will be, None where only the time is known."""
        self._load = load
        self._num_known = num_known
        self._clock = clock
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_run(self, label: str, number: int, runner: Runner | None) -> None:
        """As `Bench` calls it."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if runner is not None and not self._progress.disable:
            self._watching = asyncio.create_task(self._watch(f"{label} #{number + 1}", runner))

    async def _watch(self, name: str, runner: Runner) -> None:
        begin_s = self._clock.monotonic()
        total = float(self._num_known) if self._num_known is not None else self._load.duration_s
        bar = self._progress.add_task(name, total=total, told="")
        try:
            while True:
                done = self._clock.monotonic() - begin_s if self._num_known is None else runner.num_ended
                self._progress.update(bar, completed=done, told=told(runner), refresh=True)
                await self._clock.sleep(REFRESH_S)
        finally:
            self._end(bar)

    def _end(self, bar: TaskID) -> None:
        self._progress.remove_task(bar)


def told(runner: Runner) -> str:
    samples = runner.found.samples
    under_way = len(samples) - runner.num_ended
    failed = sum(sample.outcome is Outcome.FAILED for sample in samples)
    words = f"{runner.num_ended:,} ended, {under_way} in flight"
    return f"{words}, [red]{failed:,} failed[/]" if failed else words
