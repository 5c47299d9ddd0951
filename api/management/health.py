"""`GET /health` of the management service: `OK`, or the fleet in numbers for who accepts JSON."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, route
from litestar.handlers import HTTPRouteHandler

from api.body import AnyRequest
from api.management.objects import FleetHealth, HealthTrouble
from api.management.operations import HEALTH
from api.management.snapshots import num_idle, num_slots
from api.management.view import PoolWatch
from paddler.errors import QueueUnavailable


def health_route(watch: PoolWatch) -> HTTPRouteHandler:
    @route("/health", http_method=["GET", "HEAD"], operation=HEALTH)
    async def health(request: AnyRequest) -> Response[Any]:
        """As text it says that this process answers, nothing of Redis or agents."""
        if "application/json" not in request.headers.get("accept", ""):
            return Response("OK", media_type=MediaType.TEXT)
        try:
            pool = await watch.pool()
        except QueueUnavailable as error:
            trouble: HealthTrouble = {"status": "error", "error_message": error.message}
            return Response(trouble, status_code=503)
        idle, (_, processing) = num_idle(pool), num_slots(pool)
        told: FleetHealth = {
            "status": "ok" if idle else "no slot available",
            "slots_idle": idle,
            "slots_processing": processing,
            "requests_buffered": sum(pool.waiting.values()),
            "agents": len(pool.lanes),
        }
        return Response(told)

    return health
