"""Loading an engine: in a thread of its own, under a mark, watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from paddler.clock import Clock
from paddler.engine import Engine, ModelError
from paddler.logs import get_logger
from workers.agent.mark import StartMark
from workers.agent.passing_thread import in_passing_thread
from workers.agent.phases import Phase, Report

log = get_logger(__name__)

LOOK_S = 0.5

Build = Callable[[Report, bool], Engine]
"""Told whether an earlier start with these files never came to its end."""


class LoadStalled(Exception):
    """The loading has not moved for too long; the process must end."""


class Loader:
    """One load after another. `stall_s` bounds the time without progress behind the check, 0 not at all."""

    def __init__(self, mark: StartMark, clock: Clock, build: Build, *, stall_s: float) -> None:
        self.phase = Phase.CHECKING
        self.fraction = 0.0
        self._mark = mark
        self._clock = clock
        self._build = build
        self._stall_s = stall_s
        self._moved_at = clock.monotonic()
        self._is_mark_ours = False
        """A load is under way that is under no suspicion."""

    async def interrupted(self) -> None:
        """The process ends because it was told to. A mark that says only that is ended too; any other stays: what
        killed an earlier start, or hung, would do so again."""
        if self._is_mark_ours:
            await self._mark.end()

    async def run(self) -> Engine:
        """Raises `ModelError`, `LoadStalled`."""
        began = self._moved_at = self._clock.monotonic()
        self._report(Phase.CHECKING, 0.0)
        is_suspect = await self._mark.begin()
        self._is_mark_ours = not is_suspect
        if is_suspect:
            log.warning("an earlier start with this model never came to its end; looking at it in full")
        loading = asyncio.create_task(in_passing_thread(partial(self._build, self._report, is_suspect)))
        while not loading.done():
            await asyncio.wait({loading}, timeout=LOOK_S)
            still_s = self._clock.monotonic() - self._moved_at
            # A check says nothing of how far it is, and has limits of its own that may be longer.
            is_told = self.phase is not Phase.CHECKING
            if not loading.done() and is_told and 0 < self._stall_s < still_s:
                raise LoadStalled(f"{self.phase} has not moved from {self.fraction:.0%} for {still_s:.0f} s")
        try:
            engine = await loading
        except Exception as error:
            self._is_mark_ours = False
            if not is_suspect:
                await self._mark.end()
            if isinstance(error, ModelError):
                raise
            log.exception("loading failed in a way that nobody has foreseen")
            raise ModelError(f"loading failed: {type(error).__name__}: {error}") from error
        self._is_mark_ours = False
        await self._mark.end()
        log.info("the model is ready to serve", seconds=round(self._clock.monotonic() - began, 2))
        return engine

    def _report(self, phase: Phase, fraction: float) -> None:
        # A download of a size that nobody tells stays at 0, and still goes on.
        if phase is Phase.DOWNLOADING or (phase, fraction) != (self.phase, self.fraction):
            self.phase, self.fraction, self._moved_at = phase, fraction, self._clock.monotonic()
