"""What a stream says while it has nothing to say: a balancer's `--sse-keepalive`, or a request's `X-SSE-Keepalive`.

Proxies close what is silent, and clients give up on it; but a few read no comments.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol, runtime_checkable

from litestar.types import ASGIApp, Receive, Scope, Send

from paddler.errors import InvalidField

HEADER = b"x-sse-keepalive"

_STATE_KEY = "paddler_keepalive"


class Keepalive(StrEnum):
    """`COMMENTS` tell position and estimated wait; `DELTAS` are chunks of the protocol without text; with `NONE` and
    `DELTAS` there are no comments at all."""

    COMMENTS = "comments"
    DELTAS = "deltas"
    NONE = "none"


@runtime_checkable
class Pulsing(Protocol):
    """A rendering whose protocol has chunks that change nothing. `alive` is one, or nothing while there may be none."""

    def alive(self) -> bytes: ...


class KeepaliveReader:
    """An ASGI middleware of every route. `keepalive` is for requests that do not say."""

    def __init__(self, app: ASGIApp, keepalive: Keepalive) -> None:
        self._app = app
        self._keepalive = keepalive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"][_STATE_KEY] = _asked(scope["headers"]) or self._keepalive
        await self._app(scope, receive, send)


def keepalive_of(scope: Scope) -> Keepalive:
    return scope["state"].get(_STATE_KEY, Keepalive.COMMENTS)


def _asked(headers: Iterable[tuple[bytes, bytes]]) -> Keepalive | None:
    for name, value in headers:
        if name == HEADER:
            try:
                return Keepalive(value.decode("latin-1").strip())
            except ValueError:
                known = ", ".join(Keepalive)
                raise InvalidField(f"`X-SSE-Keepalive` must be one of {known}.", param="X-SSE-Keepalive") from None
    return None
