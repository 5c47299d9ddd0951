"""A snapshot as server-sent events: once at the beginning, then whenever it has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from litestar.types import Receive, Scope, Send

from api.access.caller import Caller, caller_of
from api.connection import Headers, Outgoing, run_while_connected
from api.management.view import REFRESH_S, PoolWatch
from paddler.clock import Clock
from paddler.errors import QueueUnavailable
from paddler.jobs.overview import PoolQueue

KEEPALIVE_S = 10.0
"""As Paddler 4."""

EVENTS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class SnapshotStream:
    """Changes that follow each other quickly, or while the client does not read, are one. Where Redis is away there is
    nothing new. Ends with the balancer, and with the key that it was opened with."""

    def __init__(
        self, watch: PoolWatch, make: Callable[[PoolQueue], bytes], stopping: asyncio.Event, clock: Clock
    ) -> None:
        self._watch = watch
        self._make = make
        self._stopping = stopping
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._snapshots(out, caller_of(scope)), receive, out, self._clock, Comments(out))

    async def _snapshots(self, out: Outgoing, caller: Caller) -> None:
        told = await self._watch.made(self._make)
        await out.start(200, EVENTS)
        await out.write(b"data: " + told + b"\n\n")
        while not self._stopping.is_set() and caller.is_let_in:
            await self._clock.sleep(REFRESH_S)
            with contextlib.suppress(QueueUnavailable):
                new = await self._watch.made(self._make, max_age_s=REFRESH_S / 2)
                if new != told:
                    told = new
                    await out.write(b"data: " + told + b"\n\n")
        await out.write(b"", last=True)


class Comments:
    """The sign of life of a stream of events."""

    def __init__(self, out: Outgoing) -> None:
        self._out = out

    def patience_s(self) -> float:
        return KEEPALIVE_S

    async def break_silence(self) -> None:
        if self._out.is_started:
            await self._out.write(b":\n\n")
