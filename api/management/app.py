"""The management service (`--management-addr`)."""

from __future__ import annotations

import asyncio

from litestar import Litestar

from api.app import create_service
from api.management.agent_routes import agent_routes
from api.management.desired import desired_routes
from api.management.health import health_route
from api.management.routes import management_routes
from api.management.view import PoolWatch
from api.openai.errors import error_handlers
from paddler.clock import Clock
from paddler.store.client import Store


def create_management_app(store: Store, stopping: asyncio.Event, clock: Clock, max_body: int) -> Litestar:
    """`stopping` ends its streams."""
    watch = PoolWatch(store, clock)
    routes = [*management_routes(watch, stopping, clock), *agent_routes(store), *desired_routes(store)]
    handlers = error_handlers(max_body)
    return create_service(routes, handlers, max_body, title="Paddler: management", health=health_route(watch))
