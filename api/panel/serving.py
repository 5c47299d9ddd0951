"""The panel as one of a balancer's services."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from litestar.types import ASGIApp

from api.access.gate import FREE
from api.hosts import guard_hosts
from api.inference.app import create_inference_app
from api.keepalive import Keepalive
from api.management.app import create_management_app
from api.panel.app import Panel
from api.panel.headers import be_strict
from api.panel.objects import LimitObject, ServiceObject
from paddler.batches.shelf import Shelf
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway
from paddler.metrics.requests import RequestMetrics
from paddler.store.client import Store
from paddler.tenants.ring import KeyRing


def create_panel(
    store: Store,
    gateway: Gateway,
    clock: Clock,
    max_body: int,
    shelf: Shelf,
    keepalive: Keepalive,
    metrics: RequestMetrics,
    *,
    limits: Sequence[LimitObject] = (),
    services: Sequence[ServiceObject] = (),
    ring: KeyRing | None,
    hosts: Sequence[str],
    own_host: str = "localhost",
    listener: socket.socket,
    is_tls: bool,
    pages: ASGIApp | None = None,
    agent_redis_url: str | None = None,
    shares_prefix_cache: bool = False,
) -> Panel:
    """Its gate stands before the handlers of the other services, which have none of their own here."""
    stopping: asyncio.Event = gateway.stopping
    panel = Panel(
        store,
        stopping,
        clock,
        max_body,
        management=create_management_app(
            store,
            stopping,
            clock,
            max_body,
            metrics,
            agent_redis_url=agent_redis_url,
            shares_prefix_cache=shares_prefix_cache,
        ),
        inference=create_inference_app(gateway, clock, max_body, shelf, keepalive),
        is_tls=is_tls,
        limits=limits,
        services=services,
        ring=ring,
        pages=pages,
        agent_redis_url=agent_redis_url,
    )
    guard_hosts(panel.app, listener, hosts, ring=ring, own=own_host, free=FREE)
    be_strict(panel.app)
    return panel
