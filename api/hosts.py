"""Under which names a service answers while nobody needs a key: against DNS rebinding.

A page of `http://evil.example` may have its name lead to 127.0.0.1 once it is loaded. To the browser the service is
then of the page's own origin, so no CORS stands between them; but what it sends as `Host` is still `evil.example`. An
address leads nowhere else, so any address passes. Where keys are needed a page has none, and any name will do. What
sends no `Host` is no browser.

    Hosts(app, ring, ["localhost", "llm.example.org", ".dev.example.org"])
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence

from litestar import Litestar
from litestar.types import ASGIApp, Receive, Scope, Send

from api.access.refusals import refuse, refuse_socket
from api.sockets import is_loopback
from paddler.errors import HostNotAllowed, PaddlerError
from paddler.host_options import ALLOWED_HOST
from paddler.tenants.ring import KeyRing

MAX_TOLD = 100
"""Characters of a refused name that are told."""


class Hosts:
    """An ASGI application around all of a service, HTTP and WebSocket: 421 for a `Host` that is none of `names`,
    loopback names and addresses, while `ring` needs no key. A name that begins with a dot stands for all names that end
    so, and for the one without it. Ports are not looked at: a tunnel changes them."""

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing | None,
        names: Iterable[str],
        *,
        free: frozenset[str] = frozenset(),
        is_native: bool = False,
    ) -> None:
        """`ring` None never needs a key. `free` are paths that answer under any name. `is_native`: paths below
        `/api/v1/` are for clients of Paddler 4, which read texts."""
        self._app = app
        self._ring = ring
        self._names = [name.lower().rstrip(".") for name in names]
        self._free = free
        self._is_native = is_native

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (self._ring is None or not self._ring.needs_key) and scope["path"] not in self._free:
            for value in _hosts_of(scope):
                if not is_known_host(value, self._names):
                    try:
                        await self._check(value)
                    except PaddlerError as error:
                        await self._refuse(scope, send, error)
                        return
        await self._app(scope, receive, send)

    async def _check(self, value: bytes) -> None:
        """Raises `HostNotAllowed` for a name that nobody knows, `QueueUnavailable`."""
        if await needs_key(self._ring):
            return
        host = value.decode("latin-1")[:MAX_TOLD]
        raise HostNotAllowed(
            f"This service is not known as {host!r}. While there are no API keys it answers to addresses, localhost "
            f"and names that {ALLOWED_HOST} of the balancer has, lest a page in a browser gives itself out for it. "
            "Call it by one of these, or make keys with `paddler keys create`.",
            param="Host",
        )

    async def _refuse(self, scope: Scope, send: Send, error: PaddlerError) -> None:
        if scope["type"] == "websocket":
            await refuse_socket(send, error)
        else:
            is_native = self._is_native and scope["path"].startswith("/api/v1/")
            await refuse(scope, send, error, is_native=is_native)


def guard_hosts(
    app: Litestar,
    listener: socket.socket,
    allowed: Iterable[str],
    *,
    ring: KeyRing | None,
    own: str = "localhost",
    free: frozenset[str] = frozenset(),
    is_native: bool = False,
) -> Litestar:
    """Puts `Hosts` around the whole application, where `is_guarded`. `own` is the host of its own flag."""
    allowed = tuple(allowed)
    if is_guarded(listener, allowed):
        app.asgi_handler = Hosts(app.asgi_handler, ring, (own, *allowed), free=free, is_native=is_native)
    return app


def is_guarded(listener: socket.socket, allowed: Sequence[str]) -> bool:
    """Whether names count where it listens: on a loopback address always. Elsewhere a key is needed, or the operator
    has said that anybody may use it; then names count once there are any, as of a container whose ports are published
    on its host's loopback address alone."""
    return is_loopback(listener) or bool(allowed)


async def needs_key(ring: KeyRing | None) -> bool:
    """Whether nobody gets through without a key. A balancer that has just started does not know yet, and must not turn
    away who comes through a proxy by its name, and has a key. Raises `QueueUnavailable`."""
    if ring is None or ring.needs_key:
        return ring is not None
    await ring.wait_loaded()
    return ring.needs_key


def is_known_host(value: bytes, names: Iterable[str]) -> bool:
    """Whether a `Host` header is an address, a name of the loopback interface (RFC 6761, section 6.3: localhost and all
    below it), or one of `names`, which are in lower case."""
    host = _without_port(value.decode("latin-1").strip().lower())
    if host.startswith("[") and host.endswith("]"):
        return _is_address(host[1:-1])
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost") or _is_address(host):
        return True
    return any(host == name.removeprefix(".") or (name.startswith(".") and host.endswith(name)) for name in names)


def _hosts_of(scope: Scope) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == b"host"]


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (not port or port.isdecimal()) else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
