"""`GET /metrics` for Prometheus: what this balancer has seen, and the fleet as Redis has it."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec import Meta

from api.body import AnyRequest
from api.openai.objects import ErrorAnswer
from api.openai.query import read_choice, read_query
from api.operation import TEXT, Answer, Operation, Parameter
from paddler.errors import InvalidField
from paddler.metrics.exposition import CONTENT_TYPE, Scope, render
from paddler.metrics.fleet import FleetWatch
from paddler.metrics.requests import RequestMetrics

METRICS = Operation(
    summary="Metrics for Prometheus.",
    tag="management",
    parameters=(
        Parameter(
            name="scope",
            where="query",
            type=Annotated[str, Meta(extra_json_schema={"enum": [str(one) for one in Scope]})],
            description="`process`: what only this balancer knows; `fleet`: what all of them tell alike; else both.",
        ),
    ),
    answers={
        200: Answer(description="In its text format; without Redis, what is known without it.", content={TEXT: str})
    },
    errors=(InvalidField,),
    error_body=ErrorAnswer,
)


def metrics_route(requests: RequestMetrics, fleet: FleetWatch) -> HTTPRouteHandler:
    @get("/metrics", operation=METRICS)
    async def get_metrics(request: AnyRequest) -> ASGIApp:
        scope = read_choice(read_query(request, ("scope",)), "scope", list(Scope))
        reading = None if scope == Scope.PROCESS else await fleet.read()
        body = render(requests, reading, with_process=scope != Scope.FLEET)
        return ASGIResponse(body=body, headers={"content-type": CONTENT_TYPE})

    return get_metrics
