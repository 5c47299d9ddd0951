"""One HTTP request and the request in the queue that it stands for, as ASGI applications.

They know no protocol: a `Rendering`, or a function, makes the bytes.

1. Submit. An error is raised, and Litestar's exception handlers answer with its HTTP status.
2. Hold the headers of a stream back until there is text, for `HOLD_BACK_S` at most: an error that comes
   quickly (the buffer is full, the prompt too long) still has its status. After that, say what goes on.
3. Render frames; say something after every `KEEPALIVE_S` without one.
4. End with the terminal frame, or with the error as the last event of the stream.

Leaving before the terminal frame, at whichever step and for whatever reason, cancels the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, assert_never

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from paddler.clock import Clock
from paddler.errors import EngineFailed, PaddlerError, RequestCancelled
from paddler.jobs.gateway import Reply
from paddler.logs import get_logger
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens, Usage

HOLD_BACK_S = 1.0
KEEPALIVE_S = 15.0

QUEUED = b": queued\n\n"
KEEPALIVE = b": keepalive\n\n"

_STATE_KEY = "paddler_request_id"

_log = get_logger(__name__)

Submit = Callable[[], Awaitable[Reply]]


class Rendering(Protocol):
    """A protocol's stream of one request. It does no I/O; every result is whole events, or nothing."""

    def tokens(self, text: str) -> bytes: ...
    def finished(self, reason: FinishReason, usage: Usage) -> bytes: ...
    def failed(self, error: PaddlerError) -> bytes: ...


class StreamedAnswer:
    """Answers with server-sent events while the request runs."""

    def __init__(self, submit: Submit, render: Callable[[str], Rendering], clock: Clock) -> None:
        """`render` is given the request id."""
        self._submit = submit
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        stream = _Stream(out)
        await run_while_connected(self._answer(scope, stream), receive, out, self._clock, stream)

    async def _answer(self, scope: Scope, stream: _Stream) -> None:
        async with await self._submit() as reply:
            _remember(scope, reply.request_id)
            stream.request_id = reply.request_id
            rendering = self._render(reply.request_id)
            try:
                await self._frames(reply, rendering, stream)
            except Exception as error:
                if stream.can_tell_by_status or stream.is_ended:
                    stream.is_failed = True
                    raise
                await stream.write(rendering.failed(_told(error, reply.request_id)), last=True)

    async def _frames(self, reply: Reply, rendering: Rendering, stream: _Stream) -> None:
        async for frame in reply:
            match frame:
                case Tokens():
                    if events := rendering.tokens(frame.text):
                        await stream.write(events)
                case Opened():
                    stream.is_opened = True
                case Finished():
                    _check_reason(frame)
                    await stream.write(rendering.finished(frame.reason, frame.usage), last=True)
                case _:
                    assert_never(frame)


class _Stream:
    """An `Outgoing` that starts with its first write, or says that the client has to wait."""

    def __init__(self, out: Outgoing) -> None:
        self._out = out
        self.request_id = ""
        self.is_opened = False
        self.is_failed = False

    @property
    def can_tell_by_status(self) -> bool:
        return not self._out.is_started

    @property
    def is_ended(self) -> bool:
        return self._out.is_ended

    async def write(self, data: bytes, *, last: bool = False) -> None:
        if not self._out.is_started:
            await self._out.start(200, _stream_headers(self.request_id))
        await self._out.write(data, last=last)

    def patience_s(self) -> float:
        return KEEPALIVE_S if self._out.is_started else HOLD_BACK_S

    async def break_silence(self) -> None:
        # Nothing may be written while an error is on its way to be told by its status.
        if self.request_id and not self.is_failed:
            await self.write(KEEPALIVE if self.is_opened else QUEUED)


class WholeAnswer:
    """Answers once, when the request has finished."""

    def __init__(self, submit: Submit, render: Callable[[str, str, Finished], bytes], clock: Clock) -> None:
        """`render` makes a JSON body of the request id, the whole text and the terminal frame."""
        self._submit = submit
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock)

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        async with await self._submit() as reply:
            _remember(scope, reply.request_id)
            texts: list[str] = []
            async for frame in reply:
                match frame:
                    case Tokens():
                        texts.append(frame.text)
                    case Opened():
                        pass
                    case Finished():
                        _check_reason(frame)
                        body = self._render(reply.request_id, "".join(texts), frame)
                        await out.start(200, _whole_headers(reply.request_id, len(body)))
                        await out.write(body, last=True)
                    case _:
                        assert_never(frame)


def request_id_of(scope: Scope) -> str | None:
    """The id of the request that was submitted for this HTTP request, if one was."""
    return scope["state"].get(_STATE_KEY)


def _remember(scope: Scope, request_id: str) -> None:
    scope["state"][_STATE_KEY] = request_id


def _check_reason(frame: Finished) -> None:
    if frame.reason is FinishReason.CANCELLED:
        raise RequestCancelled("The request was cancelled.")


def _told(error: Exception, request_id: str) -> PaddlerError:
    """The error as the client is told of it; the details of a bug go to the log alone."""
    if isinstance(error, PaddlerError):
        return error
    _log.error("stream failed", request=request_id, exc_info=error)
    return EngineFailed("Internal error; the balancer's log has the details.")


def _stream_headers(request_id: str) -> Headers:
    return [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        # nginx would collect the whole stream before passing it on.
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", request_id.encode()),
    ]


def _whole_headers(request_id: str, length: int) -> Headers:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % length),
        (b"x-request-id", request_id.encode()),
    ]
