"""Before an agent serves: it stands in its pool without slots and says how far it is, or what keeps it.

The lease is renewed here by the loop that watches the loading, so an agent that loads for minutes stays in the pool.
When its model cannot be served, the agent stays too, with an issue, and tries again when the file changes.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from paddler.clock import Clock
from paddler.engine import Engine, ModelError
from paddler.issues import UPSTREAM_KINDS, Issue, IssueKind, all_kinds, course_of, encode_issues, issue_of
from paddler.logs import get_logger
from paddler.remedies import Course
from paddler.store.pipe import Value
from workers.agent.changes import look, wait_for_change
from workers.agent.loader import Build, Loader
from workers.agent.mark import StartMark
from workers.agent.membership import Membership
from workers.agent.retrying import repeat

log = get_logger(__name__)

TELL_S = 0.5
"""Between two reports of progress; leases are renewed no more seldom than at a quarter."""
FETCHES_AGAIN = frozenset({Course.RETRIES, Course.RETRIES_SELDOM, Course.RETRIES_LITTLE, Course.WAITS_FOR_OTHER})
RETRY_S: dict[IssueKind, float] = {
    "SlotCannotStart": 60.0,
    **dict.fromkeys(UPSTREAM_KINDS, 1.0),
    **dict.fromkeys([kind for kind in all_kinds() if course_of(kind) in FETCHES_AGAIN], 30.0),
}
"""Between two tries although no file has changed: memory may have become free, a server have come back."""


class Starting:
    """Builds the engine, in the place of `membership`, whose snapshot says `loading` and no slots.

    `files` are what the engine is made of. With `waits` False any `ModelError` comes out, else only what the agent
    would have to be started anew for. `stall_s` as in `Loader`."""

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
        self._loader = Loader(mark, clock, build, stall_s=stall_s)
        self._clock = clock
        self._files = files
        self._waits = waits
        self._issues: tuple[Issue, ...] = ()
        self._changed = asyncio.Event()

    async def run(self) -> Engine:
        """The engine; the place in the pool is given up. Raises `ModelError`, `LoadStalled`."""
        telling = asyncio.create_task(repeat(self.run_tell_once, self._clock, on_trouble=self._membership.lost_touch))
        try:
            while True:
                before = look(self._files)
                loaded = await self._try()
                if not isinstance(loaded, Issue):
                    return loaded
                self._issues = (loaded,)
                self._changed.set()
                await asyncio.to_thread(gc.collect)  # a half-made engine may be in a cycle with itself
                if await wait_for_change(self._files, before, self._clock, RETRY_S.get(loaded.kind)):
                    log.info("a file of the model has changed, trying again")
                if loaded.kind not in UPSTREAM_KINDS:  # asked every second, it is down until it is not
                    self._issues = ()
        finally:
            telling.cancel()
            await asyncio.wait({telling})

    async def interrupted(self) -> None:
        """As `Loader.interrupted`."""
        await self._loader.interrupted()

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
            "phase": self._loader.phase.value,
            "progress": round(self._loader.fraction, 3),
            "issues": encode_issues(self._issues),
        }

    async def _try(self) -> Engine | Issue:
        """An engine, or what keeps the agent waiting. Raises `ModelError`, `LoadStalled`."""
        try:
            return await self._loader.run()
        except ModelError as error:
            path = error.path or (str(self._files[0]) if self._files else "")
            issue = issue_of(error.kind, str(error), path, waits=self._waits)
            if (issue,) != self._issues:
                log.error("the model cannot be served", **msgspec.structs.asdict(issue))
            if not self._waits or error.kind == "SettingsInvalid":
                raise
            let_go(error)
            return issue


def let_go(error: BaseException | None) -> None:
    """Of the model that its frames hold: the thread of the load may still have the error in its hands, and memory is
    what the next try needs."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
