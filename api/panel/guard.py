"""The gate of the panel's address: as `api/access/gate.py`, but for people in browsers.

| what | who |
|---|---|
| files of the panel, `/health`, `/ready`, `/openapi.json` | everybody |
| `/panel/api/me`, `login`, `logout` | everybody |
| all else | while there is no key everybody; then a session, or a key with the scope `management` |

A session may do all that its key's holder may, requests to models included: whoever may make keys could make one for
that. What changes something needs the header `x-paddler-panel` unless a key was sent with it, and no other origin's.
Which names may be called while there is no key is `api/hosts.py`'s, as at every other address.
"""

from __future__ import annotations

from typing import Any, cast

from litestar.types import ASGIApp, Receive, Scope, Send

from api.access.caller import Caller, remember_caller
from api.access.gate import FREE, presented_key
from api.access.refusals import refuse
from api.cors import SAFE, is_same_origin
from api.panel.headers import WRITES, session_id
from api.panel.sessions import Sessions, check
from paddler.errors import Forbidden, PaddlerError, QueueUnavailable, Unauthorized
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
        self, pages: ASGIApp, data: ASGIApp, is_data: Any, ring: KeyRing | None, sessions: Sessions | None
    ) -> None:
        """`data` answers the paths for which `is_data`, `pages` all others. `ring` None lets everybody in."""
        self._pages = pages
        self._data = data
        self._is_data = is_data
        self._ring = ring
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if not self._is_data(path):
            await self._pages(scope, receive, send)
            return
        try:
            if path not in FREE:
                await self._let_in(scope, path)
        except PaddlerError as error:
            await refuse(scope, send, error, is_native=False)
            return
        await self._data(scope, receive, send)

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
