"""Each process says who it is and how far its clock is from that of Redis; `paddler doctor` compares them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from typing import NoReturn

import msgspec
from msgspec import Struct

from paddler import __version__
from paddler.clock import Clock
from paddler.ids import new_process_id
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store, is_refusal
from paddler.store.process_keys import PROCESS_TTL_S, process_key

log = get_logger(__name__)

BEAT_S = PROCESS_TTL_S / 3
GOODBYE_S = 0.3


class Process(Struct, frozen=True, kw_only=True):
    """`clock_ms` is how far its clock was ahead of that of Redis, `since_s` when it began (s since the epoch)."""

    kind: str
    version: str
    host: str
    pid: int
    since_s: int
    clock_ms: int
    name: str = ""


class Presence:
    """`kind` is `balancer`, `agent`, `worker` or `autoscaler`."""

    def __init__(self, store: Store, clock: Clock, kind: str, name: str = "") -> None:
        self._store = store
        self._clock = clock
        self._key = process_key(store.prefix, new_process_id(kind))
        self._process = Process(
            kind=kind,
            version=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            since_s=int(clock.wall()),
            clock_ms=0,
            name=name,
        )

    async def run(self) -> NoReturn:
        """Until it is cancelled; then it is forgotten at once, as far as Redis can be reached."""
        try:
            while True:
                try:
                    await self.run_once()
                except TROUBLE as error:
                    if is_refusal(error):
                        log.debug("cannot say that we are here", error=str(error))
                await self._clock.sleep(BEAT_S)
        finally:
            with contextlib.suppress(TimeoutError, *TROUBLE):
                async with asyncio.timeout(GOODBYE_S):
                    await self._store.redis.delete(self._key)

    async def run_once(self) -> None:
        """Raises what Redis raises."""
        ahead_ms = await clock_difference_ms(self._store, self._clock)
        said = msgspec.structs.replace(self._process, clock_ms=round(ahead_ms))
        await self._store.redis.set(self._key, msgspec.json.encode(said), ex=PROCESS_TTL_S)


@contextlib.asynccontextmanager
async def present(store: Store, clock: Clock, kind: str, name: str = "") -> AsyncGenerator[None]:
    """As `Presence`, for as long as the context lasts."""
    telling = asyncio.create_task(Presence(store, clock, kind, name).run())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def clock_difference_ms(store: Store, clock: Clock) -> float:
    """How far our clock is ahead of that of Redis, exact to half of what the answer took. Raises what Redis raises."""
    before = clock.wall()
    seconds, micros = await store.redis.time()
    after = clock.wall()
    return (before + after) / 2 * 1000 - (seconds * 1000 + micros / 1000)


async def processes(store: Store) -> list[Process]:
    """Those that said so within the last minute, by kind and name. Raises what Redis raises."""
    keys: list[bytes] = [key async for key in store.redis.scan_iter(process_key(store.prefix, "*"), count=1000)]
    found: list[bytes | None] = await store.redis.mget(keys) if keys else []
    read: list[Process] = []
    for one in filter(None, found):
        with contextlib.suppress(msgspec.DecodeError):  # of another version
            read.append(msgspec.json.decode(one, type=Process))
    return sorted(read, key=lambda process: (process.kind, process.name, process.host, process.pid))
