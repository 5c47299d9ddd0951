"""May this process work on what is in Redis, beside who works there? Asked before anything else, and again and again.

Balancers and workers end when they may not; agents stand aside (`workers.agent.membership`) and go on when they may.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NoReturn

from paddler import __version__
from paddler.clock import Clock
from paddler.jobs.models import DEFAULT_POOL
from paddler.presence import processes
from paddler.store.client import TROUBLE, Store
from paddler.store.format import FORMAT, OLDEST_FORMAT, Record, read_record
from paddler.store.results import Entered, Entry

LOOK_S = 5.0
PATIENCE_S = 1.0
EXIT_CONFIG = 78
"""EX_CONFIG: starting again would change nothing."""
OURS = f"This is Paddler {__version__}, of format {FORMAT}"
TABLE = "docs/upgrades.md has the formats of all versions"


class Incompatible(Exception):
    """The message says who cannot work beside whom, and what to do about it."""

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(f"{said}. {remedy}.")
        self.said = said
        self.remedy = remedy


class Entrance:
    """Of a balancer or a worker, to all pools. `refusal` is why it may not work, None as long as it may."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.refusal: Incompatible | None = None

    async def first_look(self) -> None:
        """Redis need not be there: then `watch_loop` looks when it is. Raises `Incompatible`."""
        with contextlib.suppress(TimeoutError, *TROUBLE):
            async with asyncio.timeout(PATIENCE_S):
                await self.run_once()

    async def watch_loop(self) -> NoReturn:
        """Raises `Incompatible`: a process that was away for long may find that it has been left behind."""
        while True:
            with contextlib.suppress(*TROUBLE):
                await self.run_once()
            await self._clock.sleep(LOOK_S)

    async def run_once(self) -> None:
        """Raises `Incompatible`, and what Redis raises."""
        try:
            await self._enter(sorted({DEFAULT_POOL, *await self._store.pool_names()}))
        except Incompatible as error:
            self.refusal = error
            raise

    async def _enter(self, pools: list[str]) -> None:
        if OLDEST_FORMAT > 1:
            for pool in pools:
                record = await read_record(self._store.redis, self._store.pool(pool).keys)
                if record is None or record.oldest < OLDEST_FORMAT:
                    await self._look_at_processes()
                    break
        for pool in pools:
            check(pool, await self._store.pool(pool).enter(__version__, may_raise=True))

    async def _look_at_processes(self) -> None:
        """Before older formats are shut out; agents are looked at in the same step as that."""
        for process in await processes(self._store):
            if process.format < OLDEST_FORMAT and process.kind != "agent":
                raise Incompatible(
                    f"{OURS}, and cannot work beside the {process.kind} {process.name or process.pid} on "
                    f"{process.host}, which is Paddler {process.version}, of format {process.format}",
                    f"Upgrade or stop that one first; one that was killed is forgotten after a minute. {TABLE}",
                )


def check(pool: str, entered: Entered) -> None:
    """Raises `Incompatible` for all but `Entry.OK`."""
    told = Record(entered.number, entered.oldest, entered.who)
    match entered.entry:
        case Entry.OK:
            return
        case Entry.OUTDATED:
            raise outdated(pool, told)
        case Entry.UNREAD:
            raise unread(pool, told)
        case Entry.BESIDE:
            raise Incompatible(
                f"{OURS}, and cannot work beside the agent {entered.who} of the pool {pool}, which is of format "
                f"{entered.number}",
                f"Upgrade or stop that agent first. {TABLE}",
            )
        case Entry.EARLY:
            raise Incompatible(
                f"{OURS}, and the pool {pool} is still open to format {entered.oldest}",
                "Upgrade the balancers and workers first; the agent takes requests as soon as one of its own format "
                f"runs. {TABLE}",
            )


async def look(store: Store) -> None:
    """For commands, which come and go: nothing is entered. Raises `Incompatible`, and what Redis raises."""
    for pool in sorted({DEFAULT_POOL, *await store.pool_names()}):
        await look_at(store, pool)


async def look_at(store: Store, pool: str) -> None:
    """As `look`, into one pool."""
    record = await read_record(store.redis, store.pool(pool).keys)
    if record is not None and record.oldest > FORMAT:
        raise outdated(pool, record)
    if record is not None and record.number < OLDEST_FORMAT:
        raise unread(pool, record)


def outdated(pool: str, record: Record) -> Incompatible:
    by = f" (Paddler {record.version})" if record.version else ""
    return Incompatible(
        f"{OURS}, and the pool {pool} has been worked on by format {record.number}{by}, beside which none below "
        f"{record.oldest} may work",
        f"Use a version of format {record.oldest} or later, or go back with that fleet stopped and the backup from "
        f"before its upgrade. {TABLE}",
    )


def unread(pool: str, record: Record) -> Incompatible:
    by = f" (Paddler {record.version})" if record.version else ""
    return Incompatible(
        f"{OURS}, which reads what format {OLDEST_FORMAT} and later have written, and the pool {pool} is of format "
        f"{record.number}{by}",
        f"Run a version of format {OLDEST_FORMAT} on it before this one. {TABLE}",
    )
