"""The management service (`--management-addr`)."""

from __future__ import annotations

from litestar import Litestar

from api.app import create_service
from api.openai.errors import error_handlers


def create_management_app(max_body: int) -> Litestar:
    return create_service([], error_handlers(max_body), max_body, title="Paddler: management")
