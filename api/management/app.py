"""The management service (`--management-addr`)."""

from __future__ import annotations

import asyncio
from functools import partial

from litestar import Litestar

from api.access.gate import Gate
from api.access.operation import ERRORS
from api.app import create_service
from api.management.health import health_route
from api.management.keys import key_routes
from api.management.not_yet import not_yet_routes
from api.management.routes import management_routes
from api.management.usage import usage_routes
from api.management.view import PoolWatch
from api.openai.errors import error_handlers
from api.openai.objects import ErrorAnswer
from api.operation import Around
from paddler.clock import Clock
from paddler.store.client import Store
from paddler.tenants.keys import ApiKeys
from paddler.tenants.ring import KeyRing


def create_management_app(
    store: Store, stopping: asyncio.Event, clock: Clock, max_body: int, *, ring: KeyRing | None = None
) -> Litestar:
    """`stopping` ends its streams. `ring` None lets everybody in."""
    watch = PoolWatch(store, clock)
    keys = ApiKeys(store, clock)
    routes = [*management_routes(watch, stopping, clock), *not_yet_routes(watch)]
    routes += [*key_routes(keys, clock), *usage_routes(store, keys, clock)]
    handlers = error_handlers(max_body)
    return create_service(
        routes,
        handlers,
        max_body,
        title="Paddler: management",
        gate=None if ring is None else partial(Gate, ring=ring, clock=clock, scope="management"),
        around=Around(errors=ERRORS, error_body=ErrorAnswer),
        health=health_route(watch),
    )
