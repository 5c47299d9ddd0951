"""The files of one model, tried for as long as another try makes sense."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from paddler.clock import Clock
from paddler.desired.schema import GivenModel
from paddler.issues import Issue
from paddler.logs import get_logger
from paddler.remedies import Course
from paddler.store.pipe import Value
from workers.agent.fetch.backoff import retry_in_s
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError, issue_of_error
from workers.agent.fetch.resolve import name_of, resolve

log = get_logger(__name__)


class Downloaded(Struct, frozen=True):
    """Bytes of `total` (None: nobody knows), of all files of the model; `filename` is the one under way."""

    done: int = 0
    total: int | None = 0
    filename: str = ""


class Fetching:
    """`run` is one task; cancelling that ends the download soon. What the rest says may be asked for at any time."""

    def __init__(
        self, model: GivenModel, cache: ModelCache, clock: Clock, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._model = model
        self._cache = cache
        self._clock = clock
        self._chance = chance
        self.progress = Downloaded()
        self.issue: Issue | None = None
        """What the last try ended with, until the next one gets anywhere."""
        self._told: str = ""
        self.retry_at: float | None = None
        """When the next try begins, by the clock's `monotonic`; None while one is under way, or when there is none."""

    async def run(self) -> tuple[Path, ...]:
        """The files. Raises `FetchError` when a further try would change nothing; `issue` stays."""
        last, attempt, reached = Course.GIVES_UP, 0, 0
        while True:
            try:
                files = await resolve(self._model, self._cache, self._report)
            except FetchError as error:
                # A download that gets further each time is none that fails again and again.
                has_moved = error.course is Course.RETRIES and self.progress.done > reached
                attempt = 1 if has_moved or error.course is not last else attempt + 1
                last, reached = error.course, self.progress.done
                delay_s = retry_in_s(error.course, attempt, self._chance(), asked_s=error.asked_s)
                self._tell(error, delay_s)
                if delay_s is None:
                    raise
                self.retry_at = self._clock.monotonic() + delay_s
                await self._clock.sleep(delay_s)
                self.retry_at = None
            else:
                self.progress, self.issue = Downloaded(), None
                return files

    def snapshot(self) -> Mapping[str, Value]:
        """The fields of the agent's hash that tell of a download: bytes, a name, and 1 for a size that nobody knows."""
        now = self.progress
        return {
            "download_current": now.done,
            "download_total": now.total or 0,
            "download_filename": now.filename,
            "download_indeterminate": int(now.total is None),
        }

    def _report(self, done: int, total: int | None, filename: str) -> None:
        self.progress, self.issue = Downloaded(done, total, filename), None

    def _tell(self, error: FetchError, delay_s: float | None) -> None:
        issue = issue_of_error(error, name_of(self._model))
        if self._told != issue.kind:
            self._told = issue.kind
            again_s = None if delay_s is None else round(delay_s, 1)
            log.warning("the model's files cannot be had", **msgspec.structs.asdict(issue), again_s=again_s)
        self.issue = issue
