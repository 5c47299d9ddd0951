"""The management service (`--management-addr`)."""

from __future__ import annotations

import asyncio
from functools import partial

from litestar import Litestar

from api.access.gate import Gate
from api.access.operation import ERRORS
from api.app import create_service
from api.management.agent_access import agent_access_route
from api.management.agent_orders import agent_order_routes
from api.management.agent_routes import agent_routes
from api.management.autoscale import autoscale_routes
from api.management.dead_letters import dead_letter_routes
from api.management.desired import desired_routes
from api.management.health import health_route
from api.management.keys import key_routes
from api.management.metrics import metrics_route
from api.management.parameters import parameter_routes
from api.management.pools import pool_routes
from api.management.prefixes import prefix_routes
from api.management.preview import preview_routes
from api.management.requests import operator_request_routes
from api.management.routes import management_routes
from api.management.usage import usage_routes
from api.management.view import PoolWatches
from api.openai.errors import error_handlers
from api.openai.objects import ErrorAnswer
from api.operation import Around
from api.ready import Readiness, ready_route
from paddler.agent_access import PATH as AGENT_ACCESS_PATH
from paddler.agent_access import AgentAccess, without_files
from paddler.clock import Clock
from paddler.metrics.fleet import FleetWatch
from paddler.metrics.requests import RequestMetrics
from paddler.store.client import Store
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing


def create_management_app(
    store: Store,
    stopping: asyncio.Event,
    clock: Clock,
    max_body: int,
    metrics: RequestMetrics | None = None,
    *,
    ring: KeyRing | None = None,
    readiness: Readiness | None = None,
    agent_redis_url: str | None = None,
    shares_prefix_cache: bool = False,
) -> Litestar:
    """`stopping` ends its streams; `metrics` are what the other services have counted. `ring` None lets everybody
    in, `readiness` None is one of its own. `agent_redis_url` is what agents are told in place of the store's URL.
    `shares_prefix_cache` as of `GatewaySettings`."""
    watches = PoolWatches(store, clock)
    watch = watches.of()
    keys = ApiKeys(store, clock)
    routes = [*management_routes(watch, stopping, clock), *agent_routes(store), *desired_routes(store)]
    routes += [ready_route(readiness or Readiness(store, stopping, clock)), *agent_order_routes(store)]
    routes += [*operator_request_routes(store, clock), *dead_letter_routes(store)]
    routes += [*pool_routes(store, watches, stopping, clock), *autoscale_routes(store, watches)]
    routes += [*preview_routes(store, watches), *parameter_routes()]
    routes += prefix_routes(store, clock, shares_prefix_cache=shares_prefix_cache)
    routes += [*key_routes(keys, clock), *usage_routes(store, keys, clock)]
    access = AgentAccess(agent_redis_url or without_files(store.url), store.prefix)
    routes.append(agent_access_route(access))
    routes.append(metrics_route(metrics or RequestMetrics(), FleetWatch(store, clock)))
    handlers = error_handlers(max_body)
    return create_service(
        routes,
        handlers,
        max_body,
        title="Paddler: management",
        gate=None
        if ring is None
        else partial(Gate, ring=ring, clock=clock, scope="management", agent_paths=frozenset({AGENT_ACCESS_PATH})),
        around=Around(errors=ERRORS, error_body=ErrorAnswer),
        health=health_route(FleetWatch(store, clock, max_age_s=0)),
    )
