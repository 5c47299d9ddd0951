"""How an agent stands to the desired state of its pool, as operators see it; the names are those of Paddler 4."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

from msgspec import structs

from paddler.clock import Clock
from paddler.issues import Issue, course_of, encode_issues
from paddler.logs import get_logger
from paddler.remedies import Course
from paddler.store.pipe import Value
from workers.agent.fetch.manager import Fetching

log = get_logger(__name__)

Status = Literal["Fresh", "Applied", "AttemptedAndRetrying", "Stuck", "AttemptedAndNotAppliable"]
"""`Fresh`: nothing is wanted, or what is wanted has not been tried to its end. `AttemptedAndNotAppliable`: it is not
tried again before the state or a file changes. `Stuck`: it is, but has failed for `STUCK_S` without getting further."""

STUCK_S = 60.0
GOES_ON = "The agent goes on serving the model that it has."
HOLDS_BACK = (
    "It changes when a pause is over, a minute after the first loss and twice as long after each further one, a "
    "quarter of an hour at most; at once for another desired state."
)
LOOK_AT_THE_LOST = (
    "Read the last lines of the agent that was lost. If the state is at fault, put a better one, or go back by "
    "`paddler model rollback`."
)
_NO_DOWNLOAD: Mapping[str, Value] = {
    "download_current": 0,
    "download_total": 0,
    "download_filename": "",
    "download_indeterminate": 0,
}
LASTING = frozenset({Course.GIVES_UP, Course.WATCHES_FILE, Course.WATCHES_FILE_AND_MEMORY})
"""Time alone mends nothing of it."""


class Standing:
    """What the agent's hash says of it. `version` is the newest of the state it knows, 0 before the first, and
    `applied` the one that it serves, 0 while it serves nothing."""

    def __init__(self, clock: Clock) -> None:
        self.version = 0
        self.applied = 0
        self.override: str | None = None
        """The chat template that stands in for the model's own."""
        self.changed = asyncio.Event()
        self._clock = clock
        self._is_done = False
        self._failure: tuple[Issue, Course] | None = None
        self._fetching: Fetching | None = None
        self._failing_since: float | None = None
        self._reached = 0

    def wants(self, version: int) -> None:
        """A newer state is there."""
        self.version = version
        self.tries()
        self._failing_since = None

    def tries(self) -> None:
        """The newest state is tried, for the first time or again."""
        self._is_done, self._failure, self._fetching = False, None, None
        self.changed.set()

    def fetches(self, fetching: Fetching | None) -> None:
        self._fetching = fetching
        self._failing_since, self._reached = None, 0
        self.changed.set()

    def failed(self, issue: Issue, course: Course) -> None:
        self._failure, self._fetching = (issue, course), None
        self.changed.set()

    def holds_back(self, num_lost: int, path: str) -> None:
        """The newest state is ready and its turn is not given, as so many agents were lost over it; none any more."""
        if not num_lost:
            self.tries()
            return
        many = "an agent of this pool was" if num_lost == 1 else f"{num_lost} agents of this pool were"
        issue = Issue(
            kind="ModelCannotBeLoaded",
            detail=f"{many} lost while changing to version {self.version} of the desired state",
            model_path=path,
            action=HOLDS_BACK,
            remedy=LOOK_AT_THE_LOST,
        )
        log.warning("an agent was lost over the desired state; changing to it later", **structs.asdict(issue))
        self.failed(issue, Course.RETRIES)

    def serves(self, version: int, override: str | None) -> None:
        """`version` is what the agent serves now; if that is the newest, there is nothing more to do."""
        self.applied, self.override = version, override
        if version == self.version:
            self._is_done, self._failure = True, None
        self.changed.set()

    def serves_nothing(self) -> None:
        self.applied, self.override = 0, None
        self.changed.set()

    @property
    def issues(self) -> tuple[Issue, ...]:
        issue = None if self._fetching is None else self._fetching.issue
        if self._failure is not None:
            issue = self._failure[0]
        if issue is None:
            return ()
        if not self.applied:
            return (issue,)
        action = issue.action.replace("The agent stays in its pool without slots and tries", "It tries")
        return (structs.replace(issue, action=f"{GOES_ON} {action}"),)

    @property
    def status(self) -> Status:
        if self._failure is not None:
            return "AttemptedAndNotAppliable" if self._failure[1] in LASTING else self._retrying()
        if self._fetching is not None and self._fetching.issue is not None:
            return "AttemptedAndNotAppliable" if course_of(self._fetching.issue.kind) in LASTING else self._retrying()
        return "Applied" if self._is_done else "Fresh"

    def fields(self) -> Mapping[str, Value]:
        """Fields of the agent's hash."""
        return {
            "state_application_status": self.status,
            "desired_version": self.version,
            "applied_version": self.applied,
            "uses_chat_template_override": int(self.override is not None),
            "issues": encode_issues(self.issues),
            **(_NO_DOWNLOAD if self._fetching is None else self._fetching.snapshot()),
        }

    def _retrying(self) -> Status:
        now = self._clock.monotonic()
        reached = self._fetching.progress.done if self._fetching is not None else 0
        if self._failing_since is None or reached > self._reached:
            self._failing_since, self._reached = now, reached
        return "Stuck" if now - self._failing_since >= STUCK_S else "AttemptedAndRetrying"
