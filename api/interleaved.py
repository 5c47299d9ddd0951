"""One HTTP request that several requests of the queue answer in one stream of events, each as it goes on: choices.

No event has an id: there is no single journal to go on from. The first error ends the stream and cancels the others, as
does leaving it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol, assert_never

from litestar.types import Receive, Scope, Send

from api.connection import Outgoing, run_while_connected
from api.event_stream import EventStream, Position, told_error
from api.exchange import Submit
from api.keepalive import keepalive_of
from api.parts import Part, follow_parts
from paddler.clock import Clock
from paddler.errors import PaddlerError
from paddler.jobs.gateway import Reply
from paddler.wire.balancer import Finished, Opened, Tokens


class Interleaving(Protocol):
    """A protocol's stream of several requests. It does no I/O; every result is whole events."""

    def tokens(self, part: Part, frame: Tokens) -> bytes: ...
    def finished(self, part: Part, end: Finished) -> bytes: ...
    def over(self, ends: Sequence[Finished]) -> bytes: ...
    def failed(self, error: PaddlerError) -> bytes: ...


class InterleavedAnswer:
    """Answers with server-sent events while the requests run."""

    def __init__(
        self, submits: Sequence[Submit], render: Callable[[Reply], Interleaving], position: Position, clock: Clock
    ) -> None:
        """`render` gets the first request; `position` tells the place of one that waits."""
        self._submits = submits
        self._render = render
        self._position = position
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        stream = EventStream(out, self._position, keepalive_of(scope))
        await run_while_connected(self._answer(scope, stream), receive, out, self._clock, stream)

    async def _answer(self, scope: Scope, stream: EventStream) -> None:
        writing = _Writing(stream, self._render)
        submits = [_first(self._submits[0], writing), *self._submits[1:]]
        try:
            async with AsyncExitStack() as stack:
                parts = await follow_parts(submits, scope, stack, writing.take)
            await writing.end([part.end for part in parts if part.end is not None])
        except Exception as error:
            if stream.can_tell_by_status or stream.is_ended:
                stream.is_failed = True
                raise
            await writing.fail(error)


class _Writing:
    """Lets one part at a time write into the stream: a slow client holds all of them up."""

    def __init__(self, stream: EventStream, render: Callable[[Reply], Interleaving]) -> None:
        self._stream = stream
        self._render = render
        self._rendering: Interleaving | None = None
        self._turn = asyncio.Lock()

    def begin(self, reply: Reply) -> None:
        self._stream.reply = reply
        self._rendering = self._stream.rendering = self._render(reply)

    async def take(self, part: Part, frame: Opened | Tokens | Finished) -> None:
        assert self._rendering is not None
        async with self._turn:
            match frame:
                case Opened():
                    self._stream.is_opened = True
                    return
                case Tokens():
                    events = self._rendering.tokens(part, frame)
                case Finished():
                    events = self._rendering.finished(part, frame)
                case _:
                    assert_never(frame)
            if events:
                await self._stream.write_text(events)

    async def end(self, ends: Sequence[Finished]) -> None:
        assert self._rendering is not None
        await self._stream.write(self._rendering.over(ends), last=True)

    async def fail(self, error: Exception) -> None:
        assert self._rendering is not None
        assert self._stream.reply is not None
        await self._stream.write(self._rendering.failed(told_error(error, self._stream.reply.request_id)), last=True)


def _first(submit: Submit, writing: _Writing) -> Submit:
    async def begun() -> Reply:
        reply = await submit()
        writing.begin(reply)
        return reply

    return begun
