"""What a stream says while it has nothing to say: a balancer's `--sse-keepalive`, or a request's `X-SSE-Keepalive`.

Proxies close what is silent, and clients give up on it; but a few read no comments.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, runtime_checkable

from litestar.types import Scope

_STATE_KEY = "paddler_keepalive"


class Keepalive(StrEnum):
    """`COMMENTS` tell position and estimated wait; `DELTAS` are chunks of the protocol without text; with `NONE` and
    `DELTAS` there are no comments at all."""

    COMMENTS = "comments"
    DELTAS = "deltas"
    NONE = "none"


@runtime_checkable
class Pulsing(Protocol):
    """A rendering whose protocol has chunks that change nothing."""

    def alive(self) -> bytes: ...


def remember_keepalive(scope: Scope, keepalive: Keepalive) -> None:
    scope["state"][_STATE_KEY] = keepalive


def keepalive_of(scope: Scope) -> Keepalive:
    return scope["state"].get(_STATE_KEY, Keepalive.COMMENTS)
