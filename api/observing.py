"""What is said of every HTTP request when it is over: a line in the log, and a count for Prometheus.

    {"event": "request", "service": "inference", "method": "POST", "route": "/v1/chat/completions", "status": 200, ...}

The line has the template of the route and never its path, a query or a header that a client may put a secret into; of
what was asked and answered it has the numbers of tokens. `docs/metrics.md` has its fields.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.front import QUEUE_ID, REQUEST_ID
from paddler.clock import Clock
from paddler.jobs.measuring import Measured, Meter
from paddler.logs import get_logger
from paddler.metrics.requests import RequestMetrics

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_ROUTE = "none"
NO_ANSWER = 499
"""Its client left before anything was answered."""
QUIET_SERVICES = ("management", "panel")
QUIET_ROUTES = ("/health", "/ready", "/openapi.json")
"""Asked for every few seconds by programs: told at debug."""

log = get_logger(__name__)


class _Access:
    """One HTTP request, and the requests of the queue that it has come to."""

    def __init__(self, service: str, scope: Scope) -> None:
        self.service = service
        self.scope = scope
        self.status = NO_ANSWER
        self.ids: dict[str, str] = {}
        self.told: dict[str, Any] = {}

    def add(self, measured: Measured) -> None:
        told = self.told
        told.setdefault("tenant", measured.tenant)
        told.setdefault("outcome", measured.outcome)
        if measured.request_id:
            self.ids.setdefault("request", measured.request_id)
        for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
            told[name] = told.get(name, 0) + getattr(measured, name)
        if measured.agent_name is not None:
            told["agent"] = measured.agent_name

    @property
    def route(self) -> str:
        scope: Any = self.scope
        return scope.get("path_template") or NO_ROUTE

    @property
    def method(self) -> str:
        scope: Any = self.scope
        if scope["type"] == "websocket":
            return "WEBSOCKET"
        return scope["method"] if scope["method"] in METHODS else "other"

    def note(self, event: Any) -> None:
        match event["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self.status = event["status"]
                for name, value in event.get("headers", ()):
                    if name == QUEUE_ID:
                        self.ids["request"] = value.decode("latin-1")
                    elif name == REQUEST_ID:
                        self.ids["x_request_id"] = value.decode("latin-1")
            case "websocket.accept":
                self.status = 101
            case "websocket.close" if self.status == NO_ANSWER:
                self.status = 403
            case _:
                pass


_current: ContextVar[_Access] = ContextVar("paddler_access")


class AccessMeter(Meter):
    """Adds requests of the queue to the line of the HTTP request that they came with. Those of a WebSocket have a line
    each, as the connection may never end."""

    def ended(self, measured: Measured) -> None:
        access = _current.get(None)
        if access is None:
            return
        if access.scope["type"] == "websocket":
            one = _Access(access.service, access.scope)
            one.add(measured)
            log.info("request", service=one.service, method=one.method, route=one.route, **one.ids, **one.told)
        else:
            access.add(measured)


class Observed:
    """An ASGI application around all of a service: what its routes do not see, as a 404, is told of, too."""

    def __init__(self, app: ASGIApp, service: str, metrics: RequestMetrics, clock: Clock) -> None:
        self._app = app
        self._service = service
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_at = self._clock.monotonic()
        access = _Access(self._service, scope)
        token = _current.set(access)

        async def send_noted(event: Message) -> None:
            access.note(event)
            await send(event)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            _current.reset(token)
            self._metrics.answered(self._service, access.method, access.route, access.status)
            self._tell(access, round((self._clock.monotonic() - began_at) * 1000, 1))

    def _tell(self, access: _Access, ms: float) -> None:
        is_quiet = self._service in QUIET_SERVICES or access.route in QUIET_ROUTES
        (log.debug if is_quiet else log.info)(
            "request",
            service=self._service,
            method=access.method,
            route=access.route,
            status=access.status,
            ms=ms,
            **access.ids,
            **access.told,
        )
