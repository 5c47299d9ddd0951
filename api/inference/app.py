"""The inference service (`--inference-addr`)."""

from __future__ import annotations

from litestar import Litestar

from api.app import create_service
from api.inference.requests import request_routes
from api.native.routes import native_routes
from api.openai.errors import error_handlers
from api.openai.routes import openai_routes
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway


def create_inference_app(gateway: Gateway, clock: Clock, max_body: int) -> Litestar:
    routes = [*openai_routes(gateway, clock), *request_routes(gateway, clock), *native_routes(gateway, clock)]
    return create_service(routes, error_handlers(max_body), max_body)
