"""`GET /ready`: whether this process can serve now, for whoever sends it traffic. `/health` says that it is alive."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from litestar import Response, route
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Struct, UnsetType

from api.body import AnyRequest
from api.openai.objects import ErrorAnswer
from api.openai.query import read_choice, read_query
from api.operation import JSON, Answer, Operation, Parameter
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.jobs.overview import Overview
from paddler.store.client import TROUBLE, Store

PATIENCE_S = 1.0
"""Probes give up after a second by default."""
FRESH_S = 0.25
"""So many probes of one process, or of its services, are one question to Redis."""
SLOTS_FRESH_S = 1.0
"""The same of slots, which are a question about every pool and agent: probes need no key, as those of Kubernetes cannot
take one from a secret, and what anybody may ask must not cost anybody much."""

STOPPING = "This balancer is stopping."
NO_REDIS = "Redis does not answer."
NO_SLOT = "No agent has a slot that serves."


class Ready(Struct, frozen=True, kw_only=True):
    """`reason` is why not."""

    status: Literal["ready", "not_ready"]
    reason: str | UnsetType = UNSET


_READY = Operation(
    summary="Whether this process can serve.",
    tag="service",
    parameters=(
        Parameter(
            name="slots", where="query", type=Literal["1"], description="Ask also for an agent with slots, in any pool."
        ),
    ),
    answers={
        200: Answer(description="It can: Redis answers, and it is not stopping.", content={JSON: Ready}),
        503: Answer(description="It cannot; `reason` says why.", content={JSON: Ready}),
    },
    errors=(InvalidField,),
    error_body=ErrorAnswer,
)


class Readiness:
    """Of one process; its services share it. What many ask at once is asked of Redis once."""

    def __init__(self, store: Store, stopping: asyncio.Event, clock: Clock) -> None:
        self._store = store
        self._stopping = stopping
        self._clock = clock
        self._turn = asyncio.Lock()
        self._asked_at = float("-inf")
        self._has_redis = False
        self._slots_turn = asyncio.Lock()
        self._slots_asked_at = float("-inf")
        self._had_slots = False

    async def why_not(self, *, needs_slots: bool = False) -> str | None:
        """None when it is ready."""
        if self._stopping.is_set():
            return STOPPING
        if not await self._does_redis_answer():
            return NO_REDIS
        return NO_SLOT if needs_slots and not await self._has_slots() else None

    async def _does_redis_answer(self) -> bool:
        async with self._turn:
            now = self._clock.monotonic()
            if now - self._asked_at >= FRESH_S:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._has_redis = bool(await self._store.redis.ping())  # pyright: ignore[reportUnknownMemberType]  # untyped arguments
                except TROUBLE:
                    self._has_redis = False
                self._asked_at = self._clock.monotonic()
            return self._has_redis

    async def _has_slots(self) -> bool:
        async with self._slots_turn:
            if self._clock.monotonic() - self._slots_asked_at >= SLOTS_FRESH_S:
                self._had_slots = await self._ask_for_slots()
                self._slots_asked_at = self._clock.monotonic()
            return self._had_slots

    async def _ask_for_slots(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                pools = await Overview(self._store).pools()
        except TROUBLE:
            return False
        lanes = [lane for pool in pools for lane in pool.lanes]
        return any(lane.slots and lane.state == "ready" and not lane.is_lost for lane in lanes)


def ready_route(readiness: Readiness) -> HTTPRouteHandler:
    @route("/ready", http_method=["GET", "HEAD"], operation=_READY)
    async def ready(request: AnyRequest) -> Response[Any]:
        needs_slots = read_choice(read_query(request, ["slots"]), "slots", ["1"]) == "1"
        reason = await readiness.why_not(needs_slots=needs_slots)
        if reason is None:
            return Response(Ready(status="ready"), headers={"cache-control": "no-store"})
        told = Ready(status="not_ready", reason=reason)
        return Response(told, status_code=503, headers={"cache-control": "no-store", "retry-after": "1"})

    return ready
