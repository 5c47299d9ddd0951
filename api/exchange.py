"""One HTTP request and the request in the queue that it stands for, as ASGI applications.

They know no protocol: a `Rendering`, or a function, makes the bytes.

1. Submit. An error is raised, and Litestar's exception handlers answer with its HTTP status.
2. Hold the headers of a stream back until there is text, for `HOLD_BACK_S` at most: an error that comes
   quickly (the buffer is full, the prompt too long) still has its status. After that, say what goes on.
3. Render frames; say something after every `KEEPALIVE_S` without one. What the headers could not say yet (agent,
   attempt, cache) is a comment before the first text. Each frame's last event has an id, `<request id>:<journal
   offset behind the frame>`, from which any balancer goes on.
4. End with the terminal frame, or with the error as the last event of the stream.

Leaving before the terminal frame, at whichever step and for whatever reason, cancels the request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, assert_never

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from paddler.clock import Clock
from paddler.errors import EngineFailed, PaddlerError, RequestCancelled, RequestLost
from paddler.jobs.gateway import Reply
from paddler.logs import get_logger
from paddler.wire.balancer import Finished, FinishReason, Opened, TokenLogprob, Tokens, Usage, Vectors

HOLD_BACK_S = 1.0
KEEPALIVE_S = 15.0

# One line end, not two: openai-python keeps the last id, and takes an empty line after a comment for an event then.
QUEUED = b": queued\n"
KEEPALIVE = b": keepalive\n"

_STATE_KEY = "paddler_request_id"
_NO_HEADER = re.compile(r"[^\x21-\x7e]")

_log = get_logger(__name__)

Submit = Callable[[], Awaitable[Reply]]
RenderWhole = Callable[[Reply, Sequence[Tokens], Finished], bytes]
Position = Callable[[str], Awaitable[int | None]]


class Rendering(Protocol):
    """A protocol's stream of one request. It does no I/O; every result is whole events, or nothing."""

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes: ...
    def finished(self, reason: FinishReason, usage: Usage) -> bytes: ...
    def failed(self, error: PaddlerError) -> bytes: ...
    def over(self) -> bytes: ...


class StreamedAnswer:
    """Answers with server-sent events while the request runs."""

    def __init__(self, submit: Submit, render: Callable[[Reply], Rendering], position: Position, clock: Clock) -> None:
        """`position` tells how many requests are before one that waits."""
        self._submit = submit
        self._render = render
        self._position = position
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        stream = _Stream(out, self._position)
        await run_while_connected(self._answer(scope, stream), receive, out, self._clock, stream)

    async def _answer(self, scope: Scope, stream: _Stream) -> None:
        async with await self._submit() as reply:
            remember(scope, reply.request_id)
            stream.reply = reply
            rendering = self._render(reply)
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
                    if events := rendering.tokens(frame.text, frame.logprobs):
                        await stream.write_text(_with_id(events, reply))
                case Opened():
                    stream.is_opened = True
                case Vectors():
                    pass
                case Finished():
                    check_reason(frame)
                    await stream.write_text(rendering.finished(frame.reason, frame.usage), last=True)
                case _:
                    assert_never(frame)
        if not stream.is_ended:
            await stream.write(rendering.over(), last=True)


class _Stream:
    """An `Outgoing` that starts with its first write, or says that the client has to wait."""

    def __init__(self, out: Outgoing, position: Position) -> None:
        self._out = out
        self._position = position
        self._has_told_route = False
        self.reply: Reply | None = None
        self.is_opened = False
        self.is_failed = False

    @property
    def can_tell_by_status(self) -> bool:
        return not self._out.is_started

    @property
    def is_ended(self) -> bool:
        return self._out.is_ended

    async def write_text(self, data: bytes, *, last: bool = False) -> None:
        """The first time after headers that went out too early, with what they could not say."""
        if self._out.is_started and not self._has_told_route and self.reply is not None:
            data = _route_comment(self.reply) + data
        self._has_told_route = True
        await self.write(data, last=last)

    async def write(self, data: bytes, *, last: bool = False, position: int | None = None) -> None:
        if not self._out.is_started and self.reply is not None:
            headers = _stream_headers(self.reply.request_id) + _route_headers(self.reply)
            if position is not None:
                headers.append((b"x-queue-position", b"%d" % position))
            await self._out.start(200, headers)
        await self._out.write(data, last=last)

    def patience_s(self) -> float:
        return KEEPALIVE_S if self._out.is_started else HOLD_BACK_S

    async def break_silence(self) -> None:
        if self.reply is None:
            return
        position = None if self.is_opened else await self._position(self.reply.request_id)
        # Nothing may be written while an error is on its way to be told by its status, nor into another write.
        if self.is_failed or self._out.is_writing or self._out.is_ended:
            return
        if self.is_opened:
            await self.write(KEEPALIVE)
        else:
            await self.write(_queued(position), position=position)


class WholeAnswer:
    """Answers once, when the request has finished."""

    def __init__(self, submit: Submit, render: RenderWhole, clock: Clock) -> None:
        """`render` makes a JSON body of the request, all that it said and the terminal frame."""
        self._submit = submit
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock)

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        async with await self._submit() as reply:
            remember(scope, reply.request_id)
            said: list[Tokens] = []
            async for frame in reply:
                match frame:
                    case Tokens():
                        said.append(frame)
                    case Opened() | Vectors():
                        pass
                    case Finished():
                        check_reason(frame)
                        body = self._render(reply, said, frame)
                        await out.start(200, _whole_headers(reply.request_id, len(body)) + _route_headers(reply))
                        await out.write(body, last=True)
                    case _:
                        assert_never(frame)
            if not out.is_ended:
                raise RequestLost("Redis lost this request's answer; send it again.")


def request_id_of(scope: Scope) -> str | None:
    """The id of the request that was submitted for this HTTP request, if one was."""
    return scope["state"].get(_STATE_KEY)


def remember(scope: Scope, request_id: str) -> None:
    """For `request_id_of`."""
    scope["state"][_STATE_KEY] = request_id


def check_reason(frame: Finished) -> None:
    """Raises `RequestCancelled` for an end that is no answer."""
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
    """Of a JSON body that is sent at once."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % length),
        (b"x-request-id", request_id.encode()),
    ]


def header_value(text: str) -> str:
    """An agent's name, made fit for a header."""
    return _NO_HEADER.sub("?", text)


def _route_headers(reply: Reply) -> Headers:
    return [(name.encode(), value.encode()) for name, value in _route(reply)]


def _route_comment(reply: Reply) -> bytes:
    return "".join(f": {name}: {value}\n" for name, value in _route(reply)).encode()


def _route(reply: Reply) -> list[tuple[str, str]]:
    """What is known of the request's way."""
    route = reply.route
    name = None if route.agent_name is None else header_value(route.agent_name)
    attempt = None if route.attempt is None else str(route.attempt)
    facts = [("x-paddler-agent", name), ("x-paddler-attempt", attempt), ("x-paddler-cache", route.cache)]
    return [(name, value) for name, value in facts if value is not None]


def _with_id(events: bytes, reply: Reply) -> bytes:
    """An id on the last of some events."""
    return b"%bid: %b:%d\n\n" % (events[:-1], reply.request_id.encode(), reply.offset)


def _queued(position: int | None) -> bytes:
    return QUEUED if position is None else b": queued position=%d\n" % position
