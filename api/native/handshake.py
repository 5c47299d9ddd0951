"""Headers of a socket's handshake that would be for all of its requests, and are for none: an answer that names them
comes in place of the socket, as what is asked for would otherwise be missed in silence."""

from __future__ import annotations

from typing import Any

from litestar.datastructures import Headers

OF_ONE_REQUEST = (
    "X-Request-Class",
    "X-Request-Timeout",
    "X-Session-ID",
    "X-Conversation-Id",
    "Idempotency-Key",
    "X-SSE-Keepalive",
    "Last-Event-ID",
)


def refusal(headers: Headers) -> list[dict[str, Any]]:
    """The events of an HTTP answer instead of a socket; none for a handshake without such headers."""
    given = [name for name in OF_ONE_REQUEST if name.lower() in headers]
    if not given:
        return []
    names = ", ".join(f"`{name}`" for name in given)
    body = f"{names}: the inference socket has no headers for its requests; leave them out, or ask over HTTP.".encode()
    told = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    return [
        {"type": "websocket.http.response.start", "status": 400, "headers": told},
        {"type": "websocket.http.response.body", "body": body, "more_body": False},
    ]
