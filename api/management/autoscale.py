"""A pool in numbers, for what scales it: an operator's script, or KEDA's `metrics-api` trigger (docs/operating.md)."""

from __future__ import annotations

import math
from collections import Counter

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from api.body import AnyRequest
from api.management.asking import json_answer, paths, pool_in
from api.management.fleet_objects import AgentsByState, AutoscaleObject
from api.management.fleet_operations import AUTOSCALE
from api.management.view import PoolWatches
from api.openai.query import read_choice, read_query
from paddler.errors import InvalidField
from paddler.jobs.overview import PoolQueue
from paddler.store.client import Store

MAX_TARGET = 1000.0
_STATES = AgentsByState.__struct_fields__


def autoscale_routes(store: Store, watches: PoolWatches) -> list[HTTPRouteHandler]:
    @get(paths("autoscale"), operation=AUTOSCALE)
    async def get_autoscale(request: AnyRequest) -> ASGIApp:
        """Demand is 0 exactly when nothing waits and nothing runs, so that a fleet may go to 0 agents and come back."""
        query = read_query(request, ("target_demand_per_slot", "include_batch"))
        target = _read_target(query.get("target_demand_per_slot", "1"))
        counts_batch = read_choice(query, "include_batch", ["true", "false"]) == "true"
        pool = await watches.of(await pool_in(request, store)).pool()
        return json_answer(autoscale_object(pool, target, counts_batch=counts_batch))

    return [get_autoscale]


def autoscale_object(pool: PoolQueue, target: float, *, counts_batch: bool) -> AutoscaleObject:
    """`target`: unfinished requests that a slot is to have."""
    serving = [lane for lane in pool.lanes if lane.state == "ready" and not lane.is_lost]
    rate = sum(lane.rate or 0 for lane in serving)
    states = Counter("lost" if lane.is_lost else lane.state for lane in pool.lanes)
    wanted = pool.demand + (pool.demand_batch if counts_batch else 0)
    backlog_seconds = round(pool.backlog_tokens / rate, 3) if rate else None
    return AutoscaleObject(
        pool=pool.pool,
        demand=pool.demand,
        demand_batch=pool.demand_batch,
        waiting=sum(pool.waiting.values()),
        waiting_by_class=pool.waiting,
        oldest_wait_ms=pool.oldest_wait_ms or 0,
        slots_total=sum(lane.slots for lane in serving),
        slots_idle=sum(lane.num_idle for lane in serving),
        slots_processing=sum(min(lane.requests, lane.slots) for lane in serving),
        slots_loading=sum(lane.desired_slots for lane in pool.lanes if lane.is_coming),
        agents_total=len(pool.lanes),
        agents=AgentsByState(**{state: states[state] for state in _STATES}),
        backlog_tokens=pool.backlog_tokens,
        tokens_per_second=round(rate, 1),
        backlog_seconds=backlog_seconds if pool.backlog_tokens else 0.0,
        target_demand_per_slot=target,
        slots_suggested=math.ceil(wanted / target),
    )


def _read_target(text: str) -> float:
    try:
        target = float(text)
    except ValueError:
        target = math.nan
    if not 0 < target <= MAX_TARGET:
        raise InvalidField(
            f"`target_demand_per_slot` must be a number above 0 and at most {MAX_TARGET:g}.",
            param="target_demand_per_slot",
        )
    return target
