"""What every HTTP answer of a service tells, whatever its route, and where there is none too.

| header | what |
|---|---|
| `x-request-id` of a request | the client's name for it, 1 to 128 visible ASCII characters; any other is as none |
| `x-request-id` of an answer | that, else the id in the queue, else one made for this answer |
| `x-paddler-request-id` | the id in the queue: what `/v1/requests/` and the ids of events know |
| `openai-processing-ms` | from the request's head to the answer's |
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from api.connection import Headers
from paddler.clock import Clock

REQUEST_ID = b"x-request-id"
QUEUE_ID = b"x-paddler-request-id"
PROCESSING_MS = b"openai-processing-ms"

_CLIENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Front:
    """An ASGI application around all of Litestar: its own middlewares see nothing of a 404 or a 405."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = self._clock.monotonic()
        client_id = _client_id(scope["headers"])

        async def send_with_headers(event: Message) -> None:
            if event["type"] == "http.response.start":
                event = _with_headers(event, client_id, round((self._clock.monotonic() - began_at) * 1000))
            await send(event)

        await self._app(scope, receive, send_with_headers)


def _client_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """None for one that could not be sent back."""
    for name, value in headers:
        if name == REQUEST_ID:
            return value if _CLIENT_ID.fullmatch(value) else None
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
