"""What every service has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler, WebsocketRouteHandler
from litestar.types import ASGIApp, Middleware

from api.body import AnyRequest
from api.health import health
from api.openapi import openapi_route
from api.operation import NOTHING, Around

ErrorHandlers = dict[int | type[Exception], Callable[[AnyRequest, Any], Response[Any]]]


def create_service(
    routes: Sequence[HTTPRouteHandler | WebsocketRouteHandler],
    exception_handlers: ErrorHandlers,
    max_body: int,
    middleware: Sequence[Middleware] = (),
    *,
    title: str,
    gate: Callable[[ASGIApp], ASGIApp] | None = None,
    front: Callable[[ASGIApp], ASGIApp] | None = None,
    around: Around = NOTHING,
    health: HTTPRouteHandler = health,
) -> Litestar:
    """A Litestar application with `/health`, `/openapi.json` and `routes`. `gate` is put around it all and `front`
    around that; `around` is what they and `middleware` add to the routes.

    Litestar's own document would not be true: handlers read raw bodies.
    """
    all_routes = [health, *routes]
    told = openapi_route(title, [one for one in all_routes if isinstance(one, HTTPRouteHandler)], around)
    app = Litestar(
        [*all_routes, told],
        exception_handlers=exception_handlers,
        middleware=middleware,
        request_max_body_size=max_body,
        openapi_config=None,
        logging_config=None,
    )
    for wrap in (gate, front):
        if wrap is not None:
            app.asgi_handler = wrap(app.asgi_handler)
    return app
