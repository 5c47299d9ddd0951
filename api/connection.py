"""The HTTP side of one request: what has been written, and whether the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Receive, Send

from paddler.clock import Clock
from paddler.errors import PaddlerError

Headers = list[tuple[bytes, bytes]]


class Outgoing:
    """The answer to one HTTP request, and how far it has got. Each call is one write."""

    def __init__(self, send: Send, clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self.is_started = False
        self.is_ended = False
        self.is_writing = False
        self.last_write_s = clock.monotonic()

    async def start(self, status: int, headers: Headers) -> None:
        self.is_started = True
        event: HTTPResponseStartEvent = {"type": "http.response.start", "status": status, "headers": headers}
        await self._send(event)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Waits while the client reads too slowly."""
        self.is_ended = last
        self.is_writing = True
        event: HTTPResponseBodyEvent = {"type": "http.response.body", "body": data, "more_body": not last}
        await self._send(event)
        self.is_writing = False
        self.last_write_s = self._clock.monotonic()


class Talk(Protocol):
    """What to say when an answer has been silent for too long."""

    def patience_s(self) -> float: ...
    async def break_silence(self) -> None: ...


async def run_while_connected(
    work: Coroutine[Any, Any, None], receive: Receive, out: Outgoing, clock: Clock, talk: Talk | None = None
) -> None:
    """Run `work` to its end, or cancel it when the client goes away; either way it has cleaned up on return.

    Errors of `work` pass through; a `PaddlerError` concerns nobody once the client has gone. `work` runs in a
    task of its own and is cancelled once, so that its clean-up may await: the cancel scope of Litestar's own
    streams would cut every such await short.
    """
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    is_gone = False
    try:
        is_gone = await _watch(worker, watcher, out, clock, talk)
    finally:
        watcher.cancel()
        worker.cancel()
        outcome, _ = await asyncio.gather(worker, watcher, return_exceptions=True)
    if isinstance(outcome, Exception) and not (is_gone and isinstance(outcome, PaddlerError)):
        raise outcome


async def _watch(
    worker: asyncio.Task[None], watcher: asyncio.Task[None], out: Outgoing, clock: Clock, talk: Talk | None
) -> bool:
    """Wait until the work is done (False) or the client has gone (True)."""
    waiting = {worker, watcher}
    silent_since_s = clock.monotonic()
    while not worker.done():
        timeout_s = None
        if talk is not None:
            silent_since_s = max(silent_since_s, out.last_write_s)
            timeout_s = silent_since_s + talk.patience_s() - clock.monotonic()
            # A write that waits for a slow client is no silence, and nothing may follow the end of an answer.
            if out.is_writing or out.is_ended:
                timeout_s = talk.patience_s()
            elif timeout_s <= 0:
                silent_since_s = clock.monotonic()
                await talk.break_silence()
                continue
        done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if watcher in done:
            # The server reports a disconnect also once the answer is out, while the work still cleans up.
            if not out.is_ended:
                return True
            waiting.discard(watcher)
    return False


async def _disconnected(receive: Receive) -> None:
    """Return when the client has closed its connection; the body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
