"""A stream of server-sent events that is one HTTP answer, and what its headers or comments say of the request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from api.connection import Headers, Outgoing
from api.keepalive import Keepalive, Pulsing
from api.standing import standing_headers
from paddler.errors import EngineFailed, PaddlerError
from paddler.jobs.gateway import Reply
from paddler.jobs.status import Place
from paddler.logs import get_logger

HOLD_BACK_S = 1.0
KEEPALIVE_S = 15.0

# One line end, not two: openai-python keeps the last id, and takes an empty line after a comment for an event then.
QUEUED = b": queued\n"
KEEPALIVE = b": keepalive\n"

_NO_HEADER = re.compile(r"[^\x21-\x7e]")

_log = get_logger(__name__)

Position = Callable[[str], Awaitable[Place | None]]


class EventStream:
    """An `Outgoing` that starts with its first write, or says that the client has to wait."""

    def __init__(self, out: Outgoing, position: Position, keepalive: Keepalive = Keepalive.COMMENTS) -> None:
        self._out = out
        self._position = position
        self._keepalive = keepalive
        self._told_attempt: int | None = None
        self.reply: Reply | None = None
        self.rendering: object = None
        """What makes the deltas of a stream that is kept alive by them."""
        self.is_opened = False
        self.is_failed = False

    @property
    def can_tell_by_status(self) -> bool:
        return not self._out.is_started

    @property
    def is_ended(self) -> bool:
        return self._out.is_ended

    async def write_text(self, data: bytes, *, last: bool = False) -> None:
        """The first time after headers that went out too early, and after each hand-over, with which way it goes."""
        if self.reply is not None and self._told_attempt != self.reply.route.attempt:
            self._told_attempt = self.reply.route.attempt
            if self._out.is_started and self._keepalive is Keepalive.COMMENTS:
                data = _route_comment(self.reply) + data
        await self.write(data, last=last)

    async def write(self, data: bytes, *, last: bool = False, position: int | None = None) -> None:
        await self._start(position)
        await self._out.write(data, last=last)

    async def _start(self, position: int | None) -> None:
        if not self._out.is_started and self.reply is not None:
            if position is not None:
                self.reply.position = position
            headers = _stream_headers(self.reply.request_id) + route_headers(self.reply)
            await self._out.start(200, headers)

    def patience_s(self) -> float:
        return KEEPALIVE_S if self._out.is_started else HOLD_BACK_S

    async def break_silence(self) -> None:
        if self.reply is None:
            return
        place = None if self.is_opened else await self._position(self.reply.request_id)
        # Nothing may be written while an error is on its way to be told by its status, nor into another write.
        if self.is_failed or self._out.is_writing or self._out.is_ended:
            return
        position = None if place is None else place.position
        match self._keepalive:
            case Keepalive.COMMENTS:
                said = KEEPALIVE if self.is_opened else _queued(place)
            case Keepalive.DELTAS:
                said = self.rendering.alive() if isinstance(self.rendering, Pulsing) else b""
            case Keepalive.NONE:
                said = b""
        if said:
            await self.write(said, position=position)
        else:
            await self._start(position)


def told_error(error: Exception, request_id: str) -> PaddlerError:
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


def header_value(text: str) -> str:
    """An agent's name, made fit for a header."""
    return _NO_HEADER.sub("?", text)


def route_headers(reply: Reply) -> Headers:
    """Which way the request has gone, and where its client stands."""
    return [(name.encode(), value.encode()) for name, value in _route(reply)] + standing_headers(reply)


def _route_comment(reply: Reply) -> bytes:
    return "".join(f": {name}: {value}\n" for name, value in _route(reply)).encode()


def _route(reply: Reply) -> list[tuple[str, str]]:
    """What is known of the request's way."""
    route = reply.route
    name = None if route.agent_name is None else header_value(route.agent_name)
    attempt = None if route.attempt is None else str(route.attempt)
    facts = [("x-paddler-agent", name), ("x-paddler-attempt", attempt), ("x-paddler-cache", route.cache)]
    return [(name, value) for name, value in facts if value is not None]


def with_id(events: bytes, reply: Reply) -> bytes:
    """An id on the last of some events."""
    return b"%bid: %b:%d\n\n" % (events[:-1], reply.request_id.encode(), reply.offset)


def _queued(place: Place | None) -> bytes:
    if place is None:
        return QUEUED
    eta = "" if place.eta_ms is None else f" eta_ms={place.eta_ms}"
    return f": queued position={place.position}{eta}\n".encode()
