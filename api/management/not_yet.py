"""Routes of Paddler 4 that hang on a desired state, which Paddler does not have yet: 501 says so."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, route
from litestar.handlers import HTTPRouteHandler

from api.management.operations import APPLICABLE_STATE, DESIRED_STATE

_STATE = (
    "Agents serve what they were started with (`paddler agent --model`): a desired state that a balancer hands out is "
    "not there yet."
)


def not_yet_routes() -> list[HTTPRouteHandler]:
    @route("/api/v1/balancer_desired_state", http_method=["GET", "PUT"], operation=DESIRED_STATE)
    async def balancer_desired_state() -> Response[Any]:
        return _text(501, _STATE)

    @get("/api/v1/balancer_applicable_state", operation=APPLICABLE_STATE)
    async def get_balancer_applicable_state() -> Response[Any]:
        return _text(501, _STATE)

    return [balancer_desired_state, get_balancer_applicable_state]


def _text(status: int, words: str) -> Response[Any]:
    return Response(words, status_code=status, media_type="text/plain")
