"""The gate of the panel's address: as `api/access/gate.py`, but for people in browsers.

| what | who |
|---|---|
| files of the panel, `/health`, `/ready`, `/openapi.json` | everybody |
| `/panel/api/me`, `login`, `logout` | everybody |
| all else | while there is no key everybody; then a session, or a key with the scope `management` |

A session may do all that its key's holder may, requests to models included: whoever may make keys could make one for
that. What changes something needs the header `x-paddler-panel` unless a key was sent with it, and no other origin's.
While there is no key and only this machine can reach the address, the `Host` must be one that no page of another origin
can have been given for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.access.caller import Caller, remember_caller
from api.access.gate import FREE, presented_key
from api.access.refusals import refuse
from api.cors import SAFE, is_same_origin
from api.hosts import is_known_host, needs_key
from api.panel.headers import SECURITY, WRITES, session_id
from api.panel.sessions import Sessions, check
from paddler.errors import Forbidden, HostNotAllowed, PaddlerError, QueueUnavailable, Unauthorized
from paddler.host_options import ALLOWED_HOST
from paddler.store.client import TROUBLE
from paddler.tenants.account import Account
from paddler.tenants.ring import KeyRing

OPEN = frozenset({"/panel/api/me", "/panel/api/login", "/panel/api/logout"})
LOG_IN = "Log in, or send an API key with the scope `management`."

_SESSION = "paddler_session"


def session_of(scope: Any) -> str | None:
    """The session that a call came with, if it is open; None for calls with a key, and while none is needed."""
    return scope["state"].get(_SESSION)


class Guard:
    def __init__(
        self,
        pages: ASGIApp,
        data: ASGIApp,
        is_data: Any,
        ring: KeyRing | None,
        sessions: Sessions | None,
        *,
        hosts: Sequence[str],
        looks_at_host: bool,
    ) -> None:
        """`data` answers the paths for which `is_data`, `pages` all others. `hosts` are names it is known by beside
        those of the loopback interface, where it `looks_at_host`. `ring` None lets everybody in."""
        self._pages = pages
        self._data = data
        self._is_data = is_data
        self._ring = ring
        self._sessions = sessions
        self._hosts = [name.lower() for name in hosts]
        self._looks_at_host = looks_at_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send = _with_security(send)
        path: str = scope["path"]
        try:
            await self._check_host(scope)
            if not self._is_data(path):
                await self._pages(scope, receive, send)
                return
            if path not in FREE:
                await self._let_in(scope, path)
        except PaddlerError as error:
            await refuse(scope, send, error, is_native=False)
            return
        await self._data(scope, receive, send)

    async def _check_host(self, scope: Any) -> None:
        """Raises `HostNotAllowed`, `QueueUnavailable`."""
        if not self._looks_at_host or scope["path"] in FREE:
            return
        host = dict(scope["headers"]).get(b"host", b"")
        if not is_known_host(host, self._hosts) and not await needs_key(self._ring):
            raise HostNotAllowed(
                f"The panel is open to whoever reaches it and was called as {host.decode('latin-1')[:100]!r}. Call it "
                f"by its address or a name that {ALLOWED_HOST} of the balancer has, or make API keys with "
                "`paddler keys create NAME --scope management`.",
                param="Host",
            )

    async def _let_in(self, scope: Any, path: str) -> None:
        headers = dict(scope["headers"])
        presented = presented_key(scope["headers"])
        caller: Caller | None = None
        try:
            caller = await self._caller(scope, headers, presented)
        except (Unauthorized, Forbidden, QueueUnavailable):
            if path not in OPEN:
                raise
        if caller is not None:
            remember_caller(scope, caller)
        if cast(str, scope["method"]) not in SAFE and presented is None:
            _check_origin(headers)

    async def _caller(self, scope: Any, headers: dict[bytes, bytes], presented: str | None) -> Caller:
        """Raises `Unauthorized`, `Forbidden`, `QueueUnavailable`."""
        ring, sessions = self._ring, self._sessions
        if ring is None or sessions is None:
            return Caller()
        await ring.wait_loaded()
        if ring.is_open:
            return Caller(ring=ring)
        if presented is not None:
            await ring.look_again(presented)
            key = check(ring.find(presented))
        elif (opened := session_id(headers)) is not None:
            try:
                key = await sessions.key_of(opened)
            except TROUBLE as error:
                raise QueueUnavailable("Redis cannot be reached, which has the sessions.", retry_after_s=1) from error
            scope["state"][_SESSION] = opened
        else:
            raise Unauthorized(LOG_IN)
        return Caller(key.tenant, Account(key=key), ring)


def _check_origin(headers: dict[bytes, bytes]) -> None:
    """Raises `Forbidden`."""
    origin = headers.get(b"origin")
    if WRITES not in headers or (origin is not None and not is_same_origin(origin, headers)):
        raise Forbidden(f"What changes something is to have the header {WRITES.decode()}, and to come from the panel.")


def _with_security(send: Send) -> Send:
    names = {name for name, _ in SECURITY}

    async def send_with_headers(event: Message) -> None:
        if event["type"] == "http.response.start":
            kept = [header for header in event["headers"] if header[0] not in names]
            event = {"type": "http.response.start", "status": event["status"], "headers": [*kept, *SECURITY]}
        await send(event)

    return send_with_headers
