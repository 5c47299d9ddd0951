"""The OpenAPI documents of a balancer's services, without Redis: nothing of it is asked until a request comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from litestar import Litestar

from api.inference.app import create_inference_app
from api.keepalive import Keepalive
from api.management.app import create_management_app
from api.openai.app import create_openai_app
from api.openapi import PATHS
from api.panel.app import Panel
from paddler.batches.options import contents_of
from paddler.batches.shelf import new_shelf
from paddler.clock import SystemClock
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.settings import DEFAULT_REDIS_URL
from paddler.store.client import Store

SERVICES = ("inference", "openai", "management", "panel")


async def service_documents() -> dict[str, dict[str, Any]]:
    """What `/openapi.json` of each service says, by its name."""
    store, clock = Store(DEFAULT_REDIS_URL), SystemClock()
    gateway = Gateway(store, GatewaySettings(), clock)
    shelf = new_shelf(store, contents_of(store, "redis", clock), clock)
    inference = create_inference_app(gateway, clock, 1, shelf, Keepalive.COMMENTS)
    management = create_management_app(store, asyncio.Event(), clock, 1)
    panel = Panel(
        *(store, asyncio.Event(), clock, 1),
        management=management,
        inference=inference,
        hosts=(),
        looks_at_host=False,
        is_tls=False,
    )
    apps = (inference, create_openai_app(gateway, clock, 1, shelf), management, panel.app)
    return {name: await _document_of(app) for name, app in zip(SERVICES, apps, strict=True)}


async def _document_of(app: Litestar) -> dict[str, Any]:
    """By the handler itself, as the panel's application answers only behind its guard."""
    handler = app.route_handler_method_map[PATHS[0]]["GET"]
    answer = await handler.fn()
    return json.loads(answer.content)
