"""The service for clients of OpenAI's API (`--compat-openai-addr`): its routes and nothing else."""

from __future__ import annotations

from litestar import Litestar

from api.app import create_service
from api.openai.errors import error_handlers
from api.openai.routes import openai_routes
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway


def create_openai_app(gateway: Gateway, clock: Clock, max_body: int) -> Litestar:
    return create_service(
        openai_routes(gateway, clock), error_handlers(max_body), max_body, title="Paddler: OpenAI API"
    )
