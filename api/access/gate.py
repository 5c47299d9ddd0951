"""The one place where API keys are asked for: an ASGI application around all of a service, whatever its protocol.

It stands before anything of a request is read, so that a stranger costs nothing; and around Litestar's own handling of
errors, so that every answer tells where the limits of its key stand. While there is no key it is one comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.access.caller import Caller, remember_caller
from api.access.limit_headers import with_limits
from api.access.refusals import refuse, refuse_socket
from paddler.clock import Clock
from paddler.errors import Forbidden, PaddlerError
from paddler.tenants import records
from paddler.tenants.account import Account
from paddler.tenants.records import ApiKey
from paddler.tenants.ring import KeyRing

FREE = frozenset({"/health", "/ready", "/openapi.json", "/schema/openapi.json"})
"""What probes and generators of clients ask for: it tells nothing of anybody."""

BEARER = b"bearer "


class Gate:
    def __init__(
        self, app: ASGIApp, ring: KeyRing, clock: Clock, scope: records.Scope, agent_paths: frozenset[str] = frozenset()
    ) -> None:
        """`scope` is what the service's routes need, but for `agent_paths`, which need `agent`."""
        self._app = app
        self._ring = ring
        self._clock = clock
        self._scope: records.Scope = scope
        self._agent_paths = agent_paths
        self._anybody = Caller(ring=ring)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._ring.is_open or not _is_guarded(scope):
            # What stays open, a WebSocket, asks the ring again once there are keys.
            remember_caller(scope, self._anybody)
            await self._app(scope, receive, send)
            return
        try:
            key = await self._key(scope)
        except PaddlerError as error:
            if scope["type"] == "websocket":
                await refuse_socket(send, error)
            else:
                await refuse(scope, send, error, is_native=self._is_native(scope["path"]))
            return
        if key is None:
            remember_caller(scope, self._anybody)
            await self._app(scope, receive, send)
            return
        account = Account(key=key)
        remember_caller(scope, Caller(key.tenant, account, self._ring))

        async def send_with_limits(event: Message) -> None:
            if event["type"] == "http.response.start":
                event = with_limits(event, account, scope, self._clock.wall())
            await send(event)

        await self._app(scope, receive, send_with_limits)

    async def _key(self, scope: Any) -> ApiKey | None:
        """None where it turns out that nobody needs one. Raises `Unauthorized`, `Forbidden`, `QueueUnavailable`."""
        await self._ring.wait_loaded()
        if self._ring.is_open:
            return None
        presented = presented_key(scope["headers"])
        await self._ring.look_again(presented)
        key = self._ring.find(presented)
        needed: records.Scope = "agent" if scope["path"] in self._agent_paths else self._scope
        if needed not in key.scopes:
            raise Forbidden(f"This API key has not the scope `{needed}`, which this route needs.", param=needed)
        return key

    def _is_native(self, path: str) -> bool:
        """Of Paddler 4's inference service, whose clients read texts."""
        return self._scope == "inference" and path.startswith("/api/v1/")


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """As OpenAI's clients send a key, else as Anthropic's do."""
    other: bytes | None = None
    for name, value in headers:
        if name == b"authorization" and value[: len(BEARER)].lower() == BEARER:
            return value[len(BEARER) :].strip().decode("latin-1")
        if name == b"x-api-key":
            other = value
    return None if other is None else other.strip().decode("latin-1")


def _is_guarded(scope: Any) -> bool:
    """A browser sends no key when it asks whether it may ask; what it is told of a route is in the document, too."""
    kind: str = scope["type"]
    if kind == "websocket":
        return True
    return kind == "http" and scope["path"] not in FREE and scope["method"] != "OPTIONS"
