"""What every answer of the panel's address tells browsers, and what its requests tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from litestar import Litestar
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.connection import Headers

CSP = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",  # pictures that a reader gives to a model
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY: Headers = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]

COOKIE = "paddler_panel"
WRITES = b"x-paddler-panel"
"""Wanted on whatever changes something: a page of another origin cannot send it without asking first."""


def cookie_name(host: bytes) -> str:
    """Cookies do not know ports: each port of a host has a name of its own, or two panels would log each other out.
    `host` is the header, so that it is the same on every balancer behind one address."""
    port = host.rpartition(b":")[2]
    return f"{COOKIE}_{port.decode()}" if port.isdigit() else COOKIE


def session_id(headers: Mapping[bytes, bytes]) -> str | None:
    try:
        cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    found = cookies.get(cookie_name(headers.get(b"host", b"")))
    return found.value or None if found else None


def session_cookie(headers: Mapping[bytes, bytes], value: str, *, is_tls: bool) -> str:
    """`Set-Cookie` for a session, or for none, in answer to `headers`. It lasts as long as the browser; the session
    itself ends in Redis.

    Behind a proxy that ends TLS it is the page's own origin that says so, which browsers send with each POST and the
    gate has compared with `Host`. No `X-Forwarded-Proto` is read, so no proxy need be trusted: who sends a false
    origin makes a cookie of their own that is sent less often."""
    parts = [f"{cookie_name(headers.get(b'host', b''))}={value}", "Path=/", "HttpOnly", "SameSite=Strict"]
    if is_tls or headers.get(b"origin", b"").lower().startswith(b"https://"):
        parts.append("Secure")
    if not value:
        parts.append("Max-Age=0")
    return "; ".join(parts)


class Strict:
    """An ASGI application around all of the panel's address: every answer has `SECURITY`, whoever gives it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._names = {name for name, _ in SECURITY}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(event: Message) -> None:
            if event["type"] == "http.response.start":
                kept = [header for header in event["headers"] if header[0] not in self._names]
                event = {"type": "http.response.start", "status": event["status"], "headers": [*kept, *SECURITY]}
            await send(event)

        await self._app(scope, receive, send_with_headers)


def be_strict(app: Litestar) -> Litestar:
    """Puts `Strict` around the whole application, whatever is around it already."""
    app.asgi_handler = Strict(app.asgi_handler)
    return app
