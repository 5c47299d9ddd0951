"""A native request over HTTP: lines of JSON, one envelope each, inside HTTP 200 whatever happens.

While there is none to write, an empty line comes every `KEEPALIVE_S`, for proxies: all clients of Paddler 4 skip those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from api.exchange import Submit, check_reason, remember
from api.native.envelope import Envelopes
from api.native.errors import error_line
from api.native.label import NativeLabel
from api.native.stream import NativeStream
from paddler.clock import Clock
from paddler.errors import RequestLost
from paddler.ids import new_request_id
from paddler.jobs.gateway import DEFAULT_POOL, Reply
from paddler.wire.balancer import Answered, Finished, Opened, Tokens, Vectors

KEEPALIVE_S = 15.0

HEADERS: Headers = [
    # Not that of lines, as at Paddler 4.
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-cache"),
    # nginx would collect the whole stream before passing it on.
    (b"x-accel-buffering", b"no"),
]


class EmptyLines:
    """The sign of life of an answer in lines."""

    def __init__(self, out: Outgoing) -> None:
        self._out = out

    def patience_s(self) -> float:
        return KEEPALIVE_S

    async def break_silence(self) -> None:
        if self._out.is_started:
            await self._out.write(b"\n")


class NativeLines:
    """Answers while the request runs. Whoever leaves cancels it."""

    def __init__(
        self, submit: Submit, label: Callable[[Reply], NativeLabel], clock: Clock, *, item_timeout_ms: int
    ) -> None:
        self._submit = submit
        self._label = label
        self._clock = clock
        self._item_timeout_ms = item_timeout_ms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock, EmptyLines(out))

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        envelopes = Envelopes(new_request_id(DEFAULT_POOL))
        name: str | None = None
        try:
            async with await self._submit() as reply:
                remember(scope, reply.request_id)
                envelopes = Envelopes(reply.request_id)
                await out.start(200, [*HEADERS, (b"x-request-id", reply.request_id.encode())])
                try:
                    await _frames(reply, NativeStream(envelopes, self._label(reply), reply), out)
                finally:
                    name = reply.route.agent_name
        except Exception as error:
            if out.is_ended:
                raise
            if not out.is_started:
                await out.start(200, HEADERS)
            line = error_line(error, envelopes, self._item_timeout_ms, generated_by=name)
            await out.write(line + b"\n", last=True)


async def _frames(reply: Reply, stream: NativeStream, out: Outgoing) -> None:
    async for frame in reply:
        match frame:
            case Tokens():
                if lines := stream.tokens(frame.text):
                    await out.write(as_lines(lines))
            case Opened() | Vectors() | Answered():
                pass
            case Finished():
                check_reason(frame)
                await out.write(as_lines(stream.finished(frame)), last=True)
            case _:
                assert_never(frame)
    if not out.is_ended:
        raise RequestLost("Redis lost this request's answer; send it again.")


def as_lines(envelopes: list[bytes]) -> bytes:
    return b"\n".join([*envelopes, b""])
