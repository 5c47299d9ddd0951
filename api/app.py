"""What every service has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler, WebsocketRouteHandler

from api.body import AnyRequest
from api.health import health

ErrorHandlers = dict[int | type[Exception], Callable[[AnyRequest, Any], Response[Any]]]


def create_service(
    routes: Sequence[HTTPRouteHandler | WebsocketRouteHandler],
    exception_handlers: ErrorHandlers,
    max_body: int,
    health: HTTPRouteHandler = health,
) -> Litestar:
    """A Litestar application with `/health` and `routes`.

    No OpenAPI document is made: handlers read raw bodies, so a generated one would not be true.
    """
    return Litestar(
        [health, *routes],
        exception_handlers=exception_handlers,
        request_max_body_size=max_body,
        openapi_config=None,
        logging_config=None,
    )
