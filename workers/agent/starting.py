"""Before an agent serves: it stands in its pool without slots and says how far it is, or what keeps it.

The lease is renewed here by the loop that watches the loading, so an agent that loads for minutes stays in the pool.
When its model cannot be served, the agent stays too, with an issue, and tries again when the file changes.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from paddler.clock import Clock
from paddler.engine import Engine, ModelError
from paddler.issues import UPSTREAM_KINDS, Issue, IssueKind, encode_issues, issue_of
from paddler.logs import get_logger
from paddler.store.pipe import Value
from workers.agent.mark import StartMark, Stat, stat_of
from workers.agent.membership import Membership
from workers.agent.passing_thread import in_passing_thread
from workers.agent.phases import Phase, Report
from workers.agent.retrying import repeat

log = get_logger(__name__)

TELL_S = 0.5
"""Between two reports of progress; leases are renewed no more seldom than at a quarter."""
LOOK_S = 1.0
"""Between two looks at files that were no good."""
RETRY_S: dict[IssueKind, float] = {"SlotCannotStart": 60.0, **dict.fromkeys(UPSTREAM_KINDS, 1.0)}
"""Between two tries although no file has changed: memory may have become free, a server have come back."""

Build = Callable[[Report, bool], Engine]
"""Told whether an earlier start with these files never came to its end."""


class LoadStalled(Exception):
    """The loading has not moved for too long; the process must end."""


class Starting:
    """Builds the engine, in the place of `membership`, whose snapshot says `loading` and no slots.

    `files` are what the engine is made of. With `waits` False any `ModelError` comes out, else only what the agent
    would have to be started anew for. `stall_s` bounds the time without progress behind the
    check, 0 not at all."""

    def __init__(
        self,
        membership: Membership,
        mark: StartMark,
        clock: Clock,
        build: Build,
        *,
        files: Sequence[Path],
        waits: bool,
        stall_s: float,
    ) -> None:
        self._membership = membership
        self._mark = mark
        self._clock = clock
        self._build = build
        self._files = files
        self._waits = waits
        self._stall_s = stall_s
        self._phase = Phase.CHECKING
        self._fraction = 0.0
        self._moved_at = clock.monotonic()
        self._issues: tuple[Issue, ...] = ()
        self._is_mark_ours = False
        """A load is under way that is under no suspicion."""
        self._changed = asyncio.Event()

    async def run(self) -> Engine:
        """The engine; the place in the pool is given up. Raises `ModelError`, `LoadStalled`."""
        telling = asyncio.create_task(repeat(self.run_tell_once, self._clock, on_trouble=self._membership.lost_touch))
        try:
            while True:
                before = _look(self._files)
                loaded = await self._try()
                if not isinstance(loaded, Issue):
                    return loaded
                self._issues = (loaded,)
                self._changed.set()
                await asyncio.to_thread(gc.collect)  # a half-made engine may be in a cycle with itself
                await self._wait_for_change(before, RETRY_S.get(loaded.kind))
                if loaded.kind not in UPSTREAM_KINDS:  # asked every second, it is down until it is not
                    self._issues = ()
        finally:
            telling.cancel()
            await asyncio.wait({telling})

    async def interrupted(self) -> None:
        """The process ends because it was told to. A mark that says only that is ended too; any other stays: what
        killed an earlier start, or hung, would do so again."""
        if self._is_mark_ours:
            await self._mark.end()

    async def run_tell_once(self) -> None:
        """Publish how far it is, and renew the lease; register first, and again if the lease was over."""
        if not self._membership.agent_id or await self._membership.renew(self.snapshot()) is None:
            await self._membership.register()
            await self._membership.renew(self.snapshot())
        self._changed.clear()
        try:
            async with asyncio.timeout(min(TELL_S, self._membership.lease_ms / 4000)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def snapshot(self) -> Mapping[str, Value]:
        """The fields of the agent's hash that change."""
        return {
            "state": "failed" if self._issues else "loading",
            "phase": self._phase.value,
            "progress": round(self._fraction, 3),
            "issues": encode_issues(self._issues),
        }

    async def _try(self) -> Engine | Issue:
        """An engine, or what keeps the agent waiting. Raises `ModelError`, `LoadStalled`."""
        try:
            return await self._load()
        except ModelError as error:
            path = str(self._files[0]) if self._files else ""
            issue = issue_of(error.kind, str(error), path, waits=self._waits)
            if (issue,) != self._issues:
                log.error("the model cannot be served", **msgspec.structs.asdict(issue))
            if not self._waits or error.kind == "SettingsInvalid":
                raise
            _let_go(error)
            return issue

    async def _load(self) -> Engine:
        began = self._moved_at = self._clock.monotonic()
        self._report(Phase.CHECKING, 0.0)
        is_suspect = await self._mark.begin()
        self._is_mark_ours = not is_suspect
        if is_suspect:
            log.warning("an earlier start with this model never came to its end; looking at it in full")
        loading = asyncio.create_task(in_passing_thread(partial(self._build, self._report, is_suspect)))
        while not loading.done():
            await asyncio.wait({loading}, timeout=TELL_S)
            still_s = self._clock.monotonic() - self._moved_at
            # A check says nothing of how far it is, and has limits of its own that may be longer.
            is_told = self._phase is not Phase.CHECKING
            if not loading.done() and is_told and 0 < self._stall_s < still_s:
                raise LoadStalled(f"{self._phase} has not moved from {self._fraction:.0%} for {still_s:.0f} s")
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
        if (phase, fraction) != (self._phase, self._fraction):
            self._phase, self._fraction, self._moved_at = phase, fraction, self._clock.monotonic()

    async def _wait_for_change(self, before: list[Stat | None], limit_s: float | None) -> None:
        """`before`: the files as they were when the load began. For `limit_s` at most."""
        began = self._clock.monotonic()
        while _look(self._files) == before:
            if limit_s is not None and self._clock.monotonic() - began >= limit_s:
                return
            await self._clock.sleep(LOOK_S)
        while (seen := _look(self._files)) != before:  # a copy under way grows with every look
            before = seen
            await self._clock.sleep(LOOK_S)
        log.info("a file of the model has changed, trying again")


def _look(files: Sequence[Path]) -> list[Stat | None]:
    return [stat_of(path) for path in files]


def _let_go(error: BaseException | None) -> None:
    """Of the model that its frames hold: the thread of the load may still have the error in its hands, and memory is
    what the next try needs."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
