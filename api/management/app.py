"""The management service (`--management-addr`)."""

from __future__ import annotations

import asyncio

from litestar import Litestar

from api.app import create_service
from api.management.health import health_route
from api.management.metrics import metrics_route
from api.management.not_yet import not_yet_routes
from api.management.routes import management_routes
from api.management.view import PoolWatch
from api.openai.errors import error_handlers
from paddler.clock import Clock
from paddler.metrics.fleet import FleetWatch
from paddler.metrics.requests import RequestMetrics
from paddler.store.client import Store


def create_management_app(
    store: Store, stopping: asyncio.Event, clock: Clock, max_body: int, metrics: RequestMetrics | None = None
) -> Litestar:
    """`stopping` ends its streams; `metrics` are what the other services have counted."""
    watch = PoolWatch(store, clock)
    routes = [*management_routes(watch, stopping, clock), *not_yet_routes(watch)]
    routes.append(metrics_route(metrics or RequestMetrics(), FleetWatch(store, clock)))
    handlers = error_handlers(max_body)
    return create_service(routes, handlers, max_body, title="Paddler: management", health=health_route(watch))
