"""The inference service (`--inference-addr`)."""

from __future__ import annotations

from functools import partial

from litestar import Litestar

from api.access.gate import Gate
from api.anthropic.errors import with_messages_apart
from api.anthropic.routes import anthropic_routes
from api.app import create_service
from api.front import Front
from api.front_operation import AROUND
from api.inference.requests import request_routes
from api.keepalive import Keepalive, KeepaliveReader
from api.native.routes import native_routes
from api.openai.batches import batch_routes
from api.openai.errors import error_handlers
from api.openai.files import file_routes
from api.openai.routes import openai_routes
from api.ready import Readiness, ready_route
from paddler.batches.shelf import Shelf
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway
from paddler.tenants.ring import KeyRing


def create_inference_app(
    gateway: Gateway,
    clock: Clock,
    max_body: int,
    shelf: Shelf,
    keepalive: Keepalive = Keepalive.COMMENTS,
    *,
    ring: KeyRing | None = None,
    readiness: Readiness | None = None,
) -> Litestar:
    """`ring` None lets everybody in; `readiness` None is one of its own."""
    routes = [
        *openai_routes(gateway, clock),
        *file_routes(shelf.files, clock, shelf.quota),
        *batch_routes(shelf.files, shelf.batches, clock, shelf.quota),
        *anthropic_routes(gateway, clock),
        *request_routes(gateway, clock),
        ready_route(readiness or Readiness(gateway.store, gateway.stopping, clock)),
        *native_routes(gateway, clock),
    ]
    handlers = with_messages_apart(error_handlers(max_body), max_body)
    reader = partial(KeepaliveReader, keepalive=keepalive)
    gate = None if ring is None else partial(Gate, ring=ring, clock=clock, scope="inference")
    front = partial(Front, clock=clock)
    return create_service(
        routes, handlers, max_body, [reader], gate=gate, front=front, around=AROUND, title="Paddler: inference"
    )
