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

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, assert_never

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from api.event_stream import EventStream, Position, route_headers, told_error, with_id
from api.keepalive import keepalive_of
from paddler.clock import Clock
from paddler.errors import PaddlerError, RequestCancelled, RequestLost
from paddler.jobs.gateway import Reply
from paddler.wire.balancer import Answered, Finished, FinishReason, Opened, TokenLogprob, Tokens, Usage, Vectors

_STATE_KEY = "paddler_request_id"

Submit = Callable[[], Awaitable[Reply]]
RenderWhole = Callable[[Reply, Sequence[Tokens], Finished], bytes]


class Rendering(Protocol):
    """A protocol's stream of one request. It does no I/O; every result is whole events, or nothing."""

    def tokens(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes: ...
    def finished(self, reason: FinishReason, usage: Usage) -> bytes: ...
    def failed(self, error: PaddlerError) -> bytes: ...
    def over(self) -> bytes: ...


class StreamedAnswer:
    """Answers with server-sent events while the request runs."""

    def __init__(
        self,
        submit: Submit,
        render: Callable[[Reply], Rendering],
        position: Position,
        clock: Clock,
        *,
        begins_at_once: bool = False,
    ) -> None:
        """`position` tells the place of one that waits. `begins_at_once`: headers are not held back, and what the
        rendering has to say before any text goes out first."""
        self._submit = submit
        self._render = render
        self._position = position
        self._clock = clock
        self._begins_at_once = begins_at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        stream = EventStream(out, self._position, keepalive_of(scope))
        await run_while_connected(self._answer(scope, stream), receive, out, self._clock, stream)

    async def _answer(self, scope: Scope, stream: EventStream) -> None:
        async with await self._submit() as reply:
            remember(scope, reply.request_id)
            stream.reply = reply
            rendering = stream.rendering = self._render(reply)
            try:
                if self._begins_at_once:
                    await stream.write(rendering.tokens(""))
                await self._frames(reply, rendering, stream)
            except Exception as error:
                if stream.can_tell_by_status or stream.is_ended:
                    stream.is_failed = True
                    raise
                await stream.write(rendering.failed(told_error(error, reply.request_id)), last=True)

    async def _frames(self, reply: Reply, rendering: Rendering, stream: EventStream) -> None:
        while not reply.is_over:
            await reply.wait()
            # What has come together goes out together: a write costs more than what is rendered for it.
            events: list[bytes] = []
            is_last = False
            try:
                for frame in reply.read():
                    match frame:
                        case Tokens():
                            if text := rendering.tokens(frame.text, frame.logprobs):
                                events.append(with_id(text, reply))
                        case Opened():
                            stream.is_opened = True
                        case Vectors() | Answered():
                            pass
                        case Finished():
                            check_reason(frame)
                            events.append(rendering.finished(frame.reason, frame.usage))
                            is_last = True
                        case _:
                            assert_never(frame)
            finally:
                if events:
                    await stream.write_text(b"".join(events), last=is_last)
        if not stream.is_ended:
            await stream.write(rendering.over(), last=True)


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
                    case Opened() | Vectors() | Answered():
                        pass
                    case Finished():
                        check_reason(frame)
                        body = self._render(reply, said, frame)
                        await out.start(200, whole_headers(reply.request_id, len(body)) + route_headers(reply))
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


def whole_headers(request_id: str, length: int) -> Headers:
    """Of a JSON body that is sent at once."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % length),
        (b"x-request-id", request_id.encode()),
    ]
