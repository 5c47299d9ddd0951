"""Pages in browsers that may use a service: cross-origin resource sharing (Fetch standard), for exact origins.

Around all of Litestar, so that 404, 405, errors of the body and streams have the headers too. Litestar's own middleware
has no `Access-Control-Expose-Headers` in what it answers, and looks at no WebSocket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from litestar import Litestar
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send

from api.connection import Headers

METHODS = b"DELETE, GET, HEAD, PATCH, POST, PUT, OPTIONS"
REQUEST_HEADERS = b", ".join(
    (
        b"Accept",
        b"Authorization",
        b"Content-Type",
        b"Anthropic-Beta",
        b"Anthropic-Dangerous-Direct-Browser-Access",
        b"Anthropic-Version",
        b"Idempotency-Key",
        b"If-Match",
        b"If-None-Match",
        b"Last-Event-ID",
        b"OpenAI-Beta",
        b"OpenAI-Organization",
        b"OpenAI-Project",
        b"Traceparent",
        b"Tracestate",
        b"X-Api-Key",
        b"X-Conversation-Id",
        b"X-On-Disconnect",
        b"X-Request-Class",
        b"X-Request-Id",
        b"X-Request-Timeout",
        b"X-SSE-Keepalive",
        b"X-Session-ID",
        b"X-Stainless-Arch",
        b"X-Stainless-Helper-Method",
        b"X-Stainless-Lang",
        b"X-Stainless-OS",
        b"X-Stainless-Package-Version",
        b"X-Stainless-Retry-Count",
        b"X-Stainless-Runtime",
        b"X-Stainless-Runtime-Version",
        b"X-Stainless-Timeout",
    )
)
"""What the routes read, and what the official clients send from a page."""
EXPOSED_HEADERS = b", ".join(
    (
        b"Anthropic-RateLimit-Requests-Limit",
        b"Anthropic-RateLimit-Requests-Remaining",
        b"Anthropic-RateLimit-Requests-Reset",
        b"Anthropic-RateLimit-Tokens-Limit",
        b"Anthropic-RateLimit-Tokens-Remaining",
        b"Anthropic-RateLimit-Tokens-Reset",
        b"ETag",
        b"OpenAI-Processing-Ms",
        b"Request-Id",
        b"Retry-After",
        b"WWW-Authenticate",
        b"X-Paddler-Agent",
        b"X-Paddler-Attempt",
        b"X-Paddler-Cache",
        b"X-Paddler-Class",
        b"X-Paddler-Request-Id",
        b"X-Queue-Position",
        b"X-RateLimit-Limit-Requests",
        b"X-RateLimit-Limit-Tokens",
        b"X-RateLimit-Remaining-Requests",
        b"X-RateLimit-Remaining-Tokens",
        b"X-RateLimit-Reset-Requests",
        b"X-RateLimit-Reset-Tokens",
        b"X-Request-Id",
        b"X-Should-Retry",
    )
)
MAX_AGE = b"3600"
SAFE = ("GET", "HEAD", "OPTIONS")

_ALLOWED = "paddler.origin_is_allowed"
_PREFLIGHT_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Cors:
    """`allowed` are origins. A page of another one gets no header that would let it read an answer, is refused its
    preflight, and with `guards_changes` any call that changes something: browsers send some of those unasked.

    What sends no `Origin` is no page, and passes; so does a page from the service's own address."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str], *, flag: str, guards_changes: bool) -> None:
        """`flag` is what an operator would allow an origin with."""
        self._app = app
        self._allowed = frozenset(origin.lower().encode() for origin in allowed)
        self._flag = flag
        self._guards_changes = guards_changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        is_allowed = origin is not None and origin.lower() in self._allowed
        if scope["type"] == "websocket":
            cast("dict[str, Any]", scope)[_ALLOWED] = is_allowed
            await self._app(scope, receive, send)
            return
        method = cast("HTTPScope", scope)["method"]
        is_known = origin is None or is_allowed or is_same_origin(origin, headers)
        if method == "OPTIONS" and origin is not None and b"access-control-request-method" in headers:
            await self._answer_preflight(origin, headers, send, is_known=is_known)
        elif self._guards_changes and not is_known and method not in SAFE:
            await self._refuse(send)
        elif self._allowed:
            await self._app(scope, receive, self._with_headers(send, origin if is_allowed else None))
        else:
            await self._app(scope, receive, send)

    def _with_headers(self, send: Send, origin: bytes | None) -> Send:
        async def send_with_headers(event: Message) -> None:
            if event["type"] == "http.response.start":
                # Caches must not give an answer made for one origin to another.
                added: Headers = [(b"vary", b"Origin")]
                if origin is not None:
                    added += [
                        (b"access-control-allow-origin", origin),
                        (b"access-control-expose-headers", EXPOSED_HEADERS),
                    ]
                event = _start(event["status"], [*event["headers"], *added])
            await send(event)

        return send_with_headers

    async def _answer_preflight(
        self, origin: bytes, headers: Mapping[bytes, bytes], send: Send, *, is_known: bool
    ) -> None:
        if not is_known:
            await self._refuse(send)
            return
        answer: Headers = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", REQUEST_HEADERS),
            (b"access-control-max-age", MAX_AGE),
            (b"vary", _PREFLIGHT_VARY),
        ]
        if headers.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        await send(_start(204, answer))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _refuse(self, send: Send) -> None:
        message = f"Pages of this origin may not use this service; {self._flag} of the balancer allows an origin."
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "origin_not_allowed"}
        body = msgspec.json.encode({"error": error})
        length = b"%d" % len(body)
        answer: Headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"vary", b"Origin")]
        await send(_start(403, answer))
        await send({"type": "http.response.body", "body": body, "more_body": False})


def allow_origins(app: Litestar, allowed: Iterable[str], *, flag: str, guards_changes: bool = False) -> Litestar:
    """Puts `Cors` around the whole application, whatever is around it already: preflights carry no key."""
    app.asgi_handler = Cors(app.asgi_handler, allowed, flag=flag, guards_changes=guards_changes)
    return app


def is_allowed_origin(scope: Scope) -> bool:
    """Whether a WebSocket is opened by a page that a flag allows."""
    return bool(cast("dict[str, Any]", scope).get(_ALLOWED))


def is_same_origin(origin: bytes, headers: Mapping[bytes, bytes]) -> bool:
    """A page from the very address that it connects to."""
    try:
        return urlsplit(origin.decode("latin-1")).netloc.lower() == headers.get(b"host", b"").decode("latin-1").lower()
    except ValueError:
        return False


def _start(status: int, headers: Headers) -> HTTPResponseStartEvent:
    return {"type": "http.response.start", "status": status, "headers": headers}
