"""The management service (`--management-addr`)."""

from __future__ import annotations

import asyncio

from litestar import Litestar

from api.app import create_service
from api.management.agent_orders import agent_order_routes
from api.management.agent_routes import agent_routes
from api.management.autoscale import autoscale_routes
from api.management.dead_letters import dead_letter_routes
from api.management.desired import desired_routes
from api.management.health import health_route
from api.management.pools import pool_routes
from api.management.requests import operator_request_routes
from api.management.routes import management_routes
from api.management.view import PoolWatches
from api.openai.errors import error_handlers
from api.ready import Readiness, ready_route
from paddler.clock import Clock
from paddler.store.client import Store


def create_management_app(store: Store, stopping: asyncio.Event, clock: Clock, max_body: int) -> Litestar:
    """`stopping` ends its streams."""
    watches = PoolWatches(store, clock)
    watch = watches.of()
    routes = [*management_routes(watch, stopping, clock), *agent_routes(store), *desired_routes(store)]
    routes += [ready_route(Readiness(store, stopping, clock)), *agent_order_routes(store)]
    routes += [*operator_request_routes(store, clock), *dead_letter_routes(store)]
    routes += [*pool_routes(store, watches, stopping, clock), *autoscale_routes(store, watches)]
    handlers = error_handlers(max_body)
    return create_service(routes, handlers, max_body, title="Paddler: management", health=health_route(watch))
