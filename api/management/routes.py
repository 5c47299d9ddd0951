"""The routes of Paddler 4's management service that read the queue."""

from __future__ import annotations

import asyncio

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from api.management.operations import AGENTS, AGENTS_STREAM, BUFFERED, BUFFERED_STREAM
from api.management.snapshots import agents_object, agents_with_ages, buffered_object
from api.management.stream import SnapshotStream
from api.management.view import PoolWatch
from paddler.clock import Clock


def management_routes(watch: PoolWatch, stopping: asyncio.Event, clock: Clock) -> list[HTTPRouteHandler]:
    @get("/api/v1/agents", operation=AGENTS)
    async def get_agents() -> ASGIApp:
        return _json(await watch.made(agents_with_ages))

    @get("/api/v1/agents/stream", operation=AGENTS_STREAM)
    async def stream_agents() -> ASGIApp:
        return SnapshotStream(watch, agents_object, stopping, clock)

    @get("/api/v1/buffered_requests", operation=BUFFERED)
    async def get_buffered_requests() -> ASGIApp:
        return _json(await watch.made(buffered_object))

    @get("/api/v1/buffered_requests/stream", operation=BUFFERED_STREAM)
    async def stream_buffered_requests() -> ASGIApp:
        return SnapshotStream(watch, buffered_object, stopping, clock)

    return [get_agents, stream_agents, get_buffered_requests, stream_buffered_requests]


def _json(body: bytes) -> ASGIResponse:
    return ASGIResponse(body=body, headers={"content-type": "application/json"})
