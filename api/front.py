"""What every HTTP answer of a service tells, and every request may ask, whatever its route.

| header | what |
|---|---|
| `x-request-id` of a request | the client's own name for it, 1 to 128 visible ASCII characters; comes back as it is |
| `x-request-id` of an answer | that, else the id in the queue, else one made for this answer |
| `x-paddler-request-id` | the id in the queue: what `/v1/requests/` and the ids of events know |
| `openai-processing-ms` | from the request's head to the answer's |
| `x-sse-keepalive` of a request | what its stream says while it waits: `comments`, `deltas` or `none` |
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from api.connection import Headers
from api.keepalive import Keepalive, remember_keepalive
from paddler.clock import Clock
from paddler.errors import InvalidField

REQUEST_ID = b"x-request-id"
QUEUE_ID = b"x-paddler-request-id"
PROCESSING_MS = b"openai-processing-ms"
KEEPALIVE = b"x-sse-keepalive"

_CLIENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Front:
    """An ASGI middleware. `keepalive` is for requests that do not say."""

    def __init__(self, app: ASGIApp, clock: Clock, keepalive: Keepalive = Keepalive.COMMENTS) -> None:
        self._app = app
        self._clock = clock
        self._keepalive = keepalive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = self._clock.monotonic()
        client_id = _client_id(scope["headers"])
        remember_keepalive(scope, _keepalive(scope["headers"]) or self._keepalive)

        async def send_with_headers(event: Message) -> None:
            if event["type"] == "http.response.start":
                event = _with_headers(event, client_id, round((self._clock.monotonic() - began_at) * 1000))
            await send(event)

        await self._app(scope, receive, send_with_headers)


def _client_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == REQUEST_ID:
            if _CLIENT_ID.fullmatch(value) is None:
                raise InvalidField("`X-Request-Id` must have 1 to 128 visible ASCII characters.", param="X-Request-Id")
            return value
    return None


def _keepalive(headers: Iterable[tuple[bytes, bytes]]) -> Keepalive | None:
    for name, value in headers:
        if name == KEEPALIVE:
            try:
                return Keepalive(value.decode("latin-1").strip().lower())
            except ValueError:
                known = ", ".join(Keepalive)
                raise InvalidField(f"`X-SSE-Keepalive` must be one of {known}.", param="X-SSE-Keepalive") from None
    return None


def _with_headers(event: HTTPResponseStartEvent, client_id: bytes | None, ms: int) -> HTTPResponseStartEvent:
    headers: Headers = []
    queue_id = None
    for name, value in event["headers"]:
        if name == REQUEST_ID:
            queue_id = value
        else:
            headers.append((name, value))
    if queue_id is not None:
        headers.append((QUEUE_ID, queue_id))
    headers.append((REQUEST_ID, client_id or queue_id or b"req-" + secrets.token_hex(12).encode()))
    headers.append((PROCESSING_MS, b"%d" % ms))
    return {"type": "http.response.start", "status": event["status"], "headers": headers}
