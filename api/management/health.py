"""`GET /health` of the management service: `OK`, or all pools together in numbers for who accepts JSON."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, route
from litestar.handlers import HTTPRouteHandler

from api.body import AnyRequest
from api.management.objects import FleetHealth, HealthTrouble
from api.management.operations import HEALTH
from paddler.metrics.fleet import FleetWatch


def health_route(watch: FleetWatch) -> HTTPRouteHandler:
    @route("/health", http_method=["GET", "HEAD"], operation=HEALTH)
    async def health(request: AnyRequest) -> Response[Any]:
        """As text it says that this process answers, nothing of Redis or agents."""
        if "application/json" not in request.headers.get("accept", ""):
            return Response("OK", media_type=MediaType.TEXT)
        fleet = await watch.read()
        if fleet.redis is None:
            trouble: HealthTrouble = {"status": "error", "error_message": "Redis cannot be reached."}
            return Response(trouble, status_code=503)
        told: FleetHealth = {
            "status": "ok" if fleet.slots_idle else "no slot available",
            "slots_idle": fleet.slots_idle,
            "slots_processing": fleet.slots_processing,
            "requests_buffered": fleet.requests_buffered,
            "agents": fleet.num_agents,
        }
        return Response(told)

    return health
