"""The pools, and for each what Paddler 4's routes say of the pool `default`."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from api.body import AnyRequest
from api.management.asking import ask, json_answer, pool_in
from api.management.fleet_objects import PoolList, PoolObject
from api.management.fleet_operations import (
    POOL,
    POOL_AGENTS,
    POOL_AGENTS_STREAM,
    POOL_BUFFERED,
    POOL_BUFFERED_STREAM,
    POOLS,
)
from api.management.snapshots import agents_object, agents_with_ages, buffered_object, num_idle, num_slots
from api.management.stream import SnapshotStream
from api.management.view import PoolWatches
from paddler.clock import Clock
from paddler.jobs.overview import Overview, PoolQueue
from paddler.store.client import Store


def pool_routes(store: Store, watches: PoolWatches, stopping: asyncio.Event, clock: Clock) -> list[HTTPRouteHandler]:
    overview = Overview(store)

    @get("/api/v1/pools", operation=POOLS)
    async def list_pools() -> ASGIApp:
        names = await ask(overview.pool_names())
        pools = [pool_object(await watches.of(name).pool(max_age_s=0.25), await models(name)) for name in names]
        return json_answer(PoolList(pools, await ask(overview.is_worker_running())))

    @get("/api/v1/pools/{name:str}", operation=POOL)
    async def get_pool(request: AnyRequest) -> ASGIApp:
        name = await pool_in(request, store)
        return json_answer(pool_object(await watches.of(name).pool(), await models(name)))

    @get("/api/v1/pools/{name:str}/agents", operation=POOL_AGENTS)
    async def get_pool_agents(request: AnyRequest) -> ASGIApp:
        return _json(await watches.of(await pool_in(request, store)).made(agents_with_ages))

    @get("/api/v1/pools/{name:str}/agents/stream", operation=POOL_AGENTS_STREAM)
    async def stream_pool_agents(request: AnyRequest) -> ASGIApp:
        return SnapshotStream(watches.of(await pool_in(request, store)), agents_object, stopping, clock)

    @get("/api/v1/pools/{name:str}/buffered_requests", operation=POOL_BUFFERED)
    async def get_pool_buffered_requests(request: AnyRequest) -> ASGIApp:
        return _json(await watches.of(await pool_in(request, store)).made(buffered_object))

    @get("/api/v1/pools/{name:str}/buffered_requests/stream", operation=POOL_BUFFERED_STREAM)
    async def stream_pool_buffered_requests(request: AnyRequest) -> ASGIApp:
        return SnapshotStream(watches.of(await pool_in(request, store)), buffered_object, stopping, clock)

    async def models(name: str) -> list[str]:
        redis: Any = store.redis
        return sorted(one.decode() for one in await ask(redis.hkeys(store.pool(name).keys.models())))

    return [
        list_pools,
        get_pool,
        get_pool_agents,
        stream_pool_agents,
        get_pool_buffered_requests,
        stream_pool_buffered_requests,
    ]


def pool_object(pool: PoolQueue, models: list[str]) -> PoolObject:
    total, processing = num_slots(pool)
    return PoolObject(
        name=pool.pool,
        models=models,
        waiting=pool.waiting,
        oldest_wait_ms=pool.oldest_wait_ms,
        demand=pool.demand,
        demand_batch=pool.demand_batch,
        backlog_tokens=pool.backlog_tokens,
        agents=len(pool.lanes),
        slots_total=total,
        slots_idle=num_idle(pool),
        slots_processing=processing,
        dead_letters=pool.dead_letters,
        counters=pool.counters,
    )


def _json(body: bytes) -> ASGIResponse:
    return ASGIResponse(body=body, headers={"content-type": "application/json"})
