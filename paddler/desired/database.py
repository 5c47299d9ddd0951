"""`--state-database`: where the desired state of the pool `default` is besides Redis.

Redis has it in any case, and wins. A file is read where the pool has no state, at the first start or when Redis has
lost everything, and every change is written to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import rich_click as click
from msgspec import Struct

from paddler.clock import Clock
from paddler.desired.file import StateFile, UnusableFile
from paddler.desired.schema import BalancerDesiredState, Versioned
from paddler.desired.store import DesiredStates
from paddler.errors import PaddlerError
from paddler.logs import get_logger
from paddler.settings import DEFAULT_POOL, option
from paddler.store.client import TROUBLE, Store

log = get_logger(__name__)

RETRY_S = 5.0


class StateDatabase(Struct, frozen=True):
    """`path` None: Redis alone."""

    url: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.url


MEMORY = StateDatabase("memory://")


class _Database(click.ParamType[StateDatabase, str | StateDatabase]):
    name = "memory://|file:///path|redis"

    def convert(
        self, value: str | StateDatabase, param: click.Parameter | None, ctx: click.Context | None
    ) -> StateDatabase:
        """Also reads the file: one that cannot be used is an error before anything starts."""
        if isinstance(value, StateDatabase):
            return value
        try:
            database = parse_database(value)
            if database.path is not None:
                StateFile(database.path).load()
        except (ValueError, UnusableFile) as error:
            self.fail(f"{error}.", param, ctx)
        return database


def parse_database(text: str) -> StateDatabase:
    """Raises `ValueError` saying what is right."""
    parts = urlsplit(text)
    if text in ("memory://", "redis"):
        return StateDatabase(text)
    if parts.scheme != "file":
        what = f"{parts.scheme}: is unknown" if parts.scheme else f"{text!r} is no URL"
        meant = f"file://{Path(text).absolute()}" if not parts.scheme else "file:///path/of/state.json"
        raise ValueError(f"{what}; it is memory://, redis, or a file as {meant}")
    path = unquote(f"{parts.netloc}{parts.path}" if parts.netloc != "localhost" else parts.path)
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r}: write ? as %3F and # as %23 in the path of a file")
    if not path.startswith("/"):
        raise ValueError(f"the path of {text!r} is relative; it is to be file://{Path(path).absolute()}")
    if path.endswith("/") or Path(path).is_dir():
        raise ValueError(f"{text!r} is a directory; name a file in it, as file://{path.rstrip('/')}/state.json")
    return StateDatabase(text, Path(path))


state_database_option = option(
    "--state-database",
    type=_Database(),
    default=MEMORY.url,
    help="A file that the desired state is taken from where Redis has none, and that every change is written to. "
    "memory:// and redis: Redis alone has it.",
)
"""Adds `state_database`, a `StateDatabase`."""


class FileKeeper:
    """Keeps a file and the state in Redis together. Any number of balancers may keep one file, or one each."""

    def __init__(self, store: Store, path: Path, clock: Clock) -> None:
        self._states = DesiredStates(store, clock)
        self._file = StateFile(path)
        self._clock = clock
        self._is_first = True

    async def keep_loop(self) -> None:
        async with contextlib.aclosing(self._states.changes(DEFAULT_POOL)) as changes:
            async for found in changes:
                while not await self.keep_once(found):
                    await self._clock.sleep(RETRY_S)
                    with contextlib.suppress(*TROUBLE):
                        found = await self._states.read(DEFAULT_POOL)

    async def keep_once(self, found: Versioned) -> bool:
        """False: it did not work, to be tried again."""
        try:
            if found.version:
                return await self._write(found.state)
            state = await asyncio.to_thread(self._file.load)
            if state is not None:
                # 0: of several balancers that start at once one writes.
                author = f"file {self._file.path}"
                await self._states.write(DEFAULT_POOL, state, expected=0, author=author)
                log.info("took the desired state from the file", path=str(self._file.path))
        except PaddlerError as error:
            log.warning("the desired state of the file was not set", path=str(self._file.path), why=error.message)
        except (UnusableFile, *TROUBLE) as error:
            log.error("cannot take the desired state from the file", path=str(self._file.path), error=str(error))
            return False
        return True

    async def _write(self, state: BalancerDesiredState) -> bool:
        try:
            if self._is_first:
                await asyncio.to_thread(self._warn_of_difference, state)
            is_new = await asyncio.to_thread(self._file.save, state)
        except OSError as error:
            log.error("cannot write the desired state to the file", path=str(self._file.path), error=str(error))
            return False
        self._is_first = False
        if is_new:
            log.info("wrote the desired state to the file", path=str(self._file.path))
        return True

    def _warn_of_difference(self, state: BalancerDesiredState) -> None:
        with contextlib.suppress(UnusableFile):
            if (own := self._file.load()) is not None and own != state:
                log.warning(
                    "the file has another desired state than Redis, which wins: it is overwritten; to use it, PUT it",
                    path=str(self._file.path),
                )
