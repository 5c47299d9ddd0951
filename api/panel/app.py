"""The web admin panel's service (`--web-admin-panel-addr`): its files and its own routes, and the routes of the
management and the inference service by the very same handlers, so that its pages need no other address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from litestar import Litestar
from litestar.types import ASGIApp, Receive, Scope, Send

from api.access.gate import FREE
from api.access.operation import ERRORS
from api.app import create_service
from api.openai.errors import error_handlers
from api.openai.objects import ErrorAnswer
from api.operation import Around
from api.panel.feed import Feed
from api.panel.guard import Guard
from api.panel.joining import joining_route
from api.panel.objects import LimitObject, ServiceObject
from api.panel.pages import Pages
from api.panel.request_topics import RequestsTopic, RequestTokensTopic
from api.panel.routes import live_routes, login_routes
from api.panel.sessions import Sessions
from api.panel.settings import settings_route
from api.panel.topics import AgentsTopic, PoolsTopic, SystemTopic, Topic
from api.ready import Readiness, ready_route
from paddler.clock import Clock
from paddler.metrics.fleet import FleetWatch
from paddler.metrics.history import History, HistoryKeeper
from paddler.store.client import Store
from paddler.tenants.ring import KeyRing

FRESH_S = 0.3
"""Shorter than a tick of the feed: all topics of a tick are of one reading, and no tick has that of the last."""


class Panel:
    """`start` before use, `close` after; `app` is to be served."""

    def __init__(
        self,
        store: Store,
        stopping: asyncio.Event,
        clock: Clock,
        max_body: int,
        *,
        management: Litestar,
        inference: Litestar,
        is_tls: bool,
        limits: Sequence[LimitObject] = (),
        services: Sequence[ServiceObject] = (),
        ring: KeyRing | None = None,
        pages: ASGIApp | None = None,
        agent_redis_url: str | None = None,
    ) -> None:
        """`management` and `inference` have no gate of their own. `limits` and `services` are what the page of settings
        shows. `ring` None lets everybody in."""
        watch = FleetWatch(store, clock, max_age_s=FRESH_S)
        history = History(store)
        sessions = None if ring is None else Sessions(store, ring, clock)
        self._keeper = HistoryKeeper(history, watch, store, clock)
        requests = RequestsTopic(store, clock)
        topics: list[Topic] = [AgentsTopic(watch), PoolsTopic(watch, store), SystemTopic(watch)]
        topics += [requests, RequestTokensTopic(requests)]
        self._feed = Feed(topics, history, clock)
        routes = [
            *login_routes(ring, sessions, is_tls=is_tls),
            *live_routes(self._feed, history, sessions, stopping, clock),
            joining_route(agent_redis_url or store.url, store.prefix),
            settings_route(store, clock, ring, limits, services),
            ready_route(Readiness(store, stopping, clock)),
        ]
        self.app = create_service(
            routes,
            error_handlers(max_body),
            max_body,
            title="Paddler: panel",
            around=Around(errors=ERRORS, error_body=ErrorAnswer),
        )
        data = Data(self.app.asgi_handler, management, inference)
        self.app.asgi_handler = Guard(pages or Pages(), data, data.has, ring, sessions)

    def start(self) -> None:
        self._keeper.start()

    async def close(self) -> None:
        await self._feed.close()
        await self._keeper.close()


class Data:
    """Which of the services' handlers answers a path."""

    def __init__(self, own: ASGIApp, management: Litestar, inference: Litestar) -> None:
        self._own = own
        self._management = management
        self._inference = inference
        # Paddler 4 has both services below /api/v1, and no path of inference has a variable there.
        self._inference_paths = {route.path for route in inference.routes if route.path.startswith("/api/")}

    def has(self, path: str) -> bool:
        return path in FREE or path == "/metrics" or path.startswith(("/panel/", "/api/", "/v1/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path in FREE or path.startswith("/panel/"):
            await self._own(scope, receive, send)
        elif path.startswith("/v1/") or path in self._inference_paths:
            await self._inference(scope, receive, send)
        else:
            await self._management(scope, receive, send)
