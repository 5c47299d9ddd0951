"""Making ready what the pool's desired state wants, while the agent goes on serving what it has: the files are fetched,
llama.cpp looks at them in a process of its own, a chat template is compiled. What cannot be had harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec
from msgspec import Struct

from paddler.clock import Clock
from paddler.desired.adapters import WantedAdapter
from paddler.desired.schema import GivenModel
from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings, LoraAdapter
from paddler.issues import course_of, issue_of
from paddler.logs import get_logger
from paddler.remedies import Course
from workers.agent.changes import look, wait_for_change
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.manager import Fetching
from workers.agent.fetch.resolve import name_of
from workers.agent.mark import Stat
from workers.agent.standing import Standing
from workers.agent.starting import RETRY_S
from workers.agent.wanted import Wanted, WantedFiles, files_of, state_adapters

log = get_logger(__name__)

_T = TypeVar("_T")


class Prepared(Struct, frozen=True, eq=False):
    """Ready to be loaded. `settings` None: no model is wanted. `before`: the files as they were looked at."""

    wanted: Wanted
    settings: EngineSettings | None
    files: tuple[Path, ...] = ()
    before: tuple[Stat | None, ...] = ()

    @property
    def version(self) -> int:
        return self.wanted.version

    @property
    def template(self) -> str | None:
        return None if self.settings is None else self.settings.chat_template


class _Failure(Struct, frozen=True):
    """`where` is what could not be had, if that is not the model."""

    error: ModelError
    files: tuple[Path, ...] = ()
    before: tuple[Stat | None, ...] = ()
    where: str = ""


class Preparation:
    """`watch_loop` and `prepare_loop` run for ever; `ready` is what they have made of the newest state, None while they
    are at it. `changes` yields the newest state; `make` makes settings of it and `check`, in a thread, looks at them
    and at the files: both raise `ModelError`. `adapters` are those that it wants."""

    def __init__(
        self,
        changes: Callable[[], AsyncIterator[Wanted]],
        cache: ModelCache,
        make: Callable[[Wanted, WantedFiles], EngineSettings],
        check: Callable[[EngineSettings], None],
        standing: Standing,
        clock: Clock,
        *,
        adapters: Callable[[Wanted], Sequence[WantedAdapter]] = state_adapters,
    ) -> None:
        self.ready: Prepared | None = None
        self._changes = changes
        self._cache = cache
        self._make = make
        self._check = check
        self._standing = standing
        self._clock = clock
        self._adapters = adapters
        self._newest: Wanted | None = None
        self._refused: _Failure | None = None
        self._news = asyncio.Event()
        self._turned = asyncio.Event()

    async def differing(self, served: Prepared | None) -> Prepared:
        """What is to be served instead of that, as soon as it is ready."""
        while self.ready is None or self.ready is served:
            self._turned.clear()
            await self._turned.wait()
        return self.ready

    def refuse(self, prepared: Prepared, error: ModelError) -> None:
        """It was ready, and could not be loaded all the same."""
        if self.ready is prepared:
            self._refused = _Failure(error, prepared.files, prepared.before)
            self._turn(None)
            self._news.set()

    async def watch_loop(self) -> None:
        async for wanted in self._changes():
            if wanted.version == 0 and self._newest is not None:
                # Nobody has ever wished for anything, says a Redis that has lost everything: no reason to stop.
                log.warning("the desired state is gone; going on with what was wanted last")
                continue
            # A Redis that has forgotten its last second may go back to an earlier state of the same version.
            if wanted != self._newest:
                self._newest = wanted
                self._refused = None
                self._turn(None)
                self._standing.wants(wanted.version)
                self._news.set()

    async def prepare_loop(self) -> NoReturn:
        while True:
            await self._news.wait()
            self._news.clear()
            wanted, failure = self._newest, self._refused
            self._refused = None
            assert wanted is not None
            while not self._news.is_set():
                if failure is None:
                    self._standing.tries()
                    result = await self._unless_news(self._prepare(wanted))
                    if not isinstance(result, _Failure):
                        if result is not None:
                            self._turn(result)
                        break
                    failure = result
                self._turn(None)
                await self._unless_news(self._wait_out(failure))
                failure = None

    async def _unless_news(self, doing: Awaitable[_T]) -> _T | None:
        """Its result, or None if it was given up for something newer."""
        task, news = asyncio.ensure_future(doing), asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({task, news}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for one in (task, news):
                one.cancel()
            await asyncio.gather(task, news, return_exceptions=True)

    async def _prepare(self, wanted: Wanted) -> Prepared | _Failure:
        if wanted.model is None:
            return Prepared(wanted, None)
        files: tuple[Path, ...] = ()
        before: list[Stat | None] = []
        under_way = wanted.model
        try:
            model = await self._fetch(under_way)
            projection = None
            if wanted.projection is not None:
                under_way = wanted.projection
                projection = (await self._fetch(under_way))[0]
            adapters: list[LoraAdapter] = []
            for one in self._adapters(wanted):
                under_way = one.source
                adapters.append(LoraAdapter(await self._fetched_adapter(under_way), one.scale))
            under_way = wanted.model
            settings = self._make(wanted, WantedFiles(model=model, projection=projection, adapters=tuple(adapters)))
            files = files_of(settings)
            before = look(files)
            await asyncio.to_thread(self._check, settings)
        except ModelError as error:
            return _Failure(error, files, tuple(before), name_of(under_way))
        except Exception as error:
            log.exception("a state cannot be prepared for a reason that nobody has foreseen")
            told = ModelError(f"{type(error).__name__}: {error}")
            return _Failure(told, files, tuple(before), name_of(under_way))
        return Prepared(wanted, settings, files, tuple(before))

    async def _fetched_adapter(self, source: GivenModel) -> str:
        """Its path. One on this machine is looked at with the model that it is for. Raises `FetchError`."""
        return source.LocalToAgent or str((await self._fetch(source))[0])

    async def _fetch(self, model: GivenModel) -> tuple[Path, ...]:
        """Tries for as long as another try makes sense. Raises `FetchError`."""
        fetching = Fetching(model, self._cache, self._clock)
        self._standing.fetches(fetching)
        files = await fetching.run()
        self._standing.fetches(None)
        return files

    async def _wait_out(self, failure: _Failure) -> None:
        """Until another try may end otherwise, which for most is never."""
        error, files = failure.error, failure.files
        course = error.course if isinstance(error, FetchError) else course_of(error.kind)
        wanted = self._newest
        where = error.path or (str(files[0]) if files else failure.where)
        told: dict[str, str] = {}
        if error.kind == "ChatTemplateDoesNotCompile" and wanted is not None:
            told["template_content"] = wanted.template or ""
        issue = issue_of(error.kind, str(error), where, waits=True, course=course, **told)
        log.error("the desired state cannot be applied", version=self._standing.version, **_loggable(issue))
        self._standing.failed(issue, course)
        if course not in (Course.WATCHES_FILE, Course.WATCHES_FILE_AND_MEMORY) or not files:
            await asyncio.Event().wait()
        while not await wait_for_change(files, list(failure.before), self._clock, RETRY_S["SlotCannotStart"]):
            # Beside a model that serves there will be no more memory than there was when it had gone.
            if course is Course.WATCHES_FILE_AND_MEMORY and not self._standing.applied:
                return
        log.info("a file of the model has changed, trying again")

    def _turn(self, prepared: Prepared | None) -> None:
        self.ready = prepared
        self._turned.set()


def _loggable(issue: Struct) -> dict[str, object]:
    fields = msgspec.structs.asdict(issue)
    return {name: value for name, value in fields.items() if name != "template_content"}
