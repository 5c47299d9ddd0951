"""Requests as an operator sees them: what is in flight and waits, what happened to one, and stopping it."""

from __future__ import annotations

from typing import cast

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp

from api.body import AnyRequest
from api.management.asking import ask, checked_id, json_answer, paths, pool_in
from api.management.fleet_objects import (
    CancelAnswer,
    RequestError,
    RequestEvent,
    RequestObject,
    RequestPage,
    RequestState,
    RequestTimeline,
)
from api.management.fleet_operations import CANCEL, LIMIT, MAX_LIMIT, REQUEST, REQUESTS
from api.management.labels import model_called
from api.openai.query import read_choice, read_limit, read_query
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.ids import pool_of
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.fleet_view import FleetView
from paddler.jobs.request_list import STATES, Filter, Listed, RequestList
from paddler.jobs.status import not_found
from paddler.jobs.timeline import Timeline, read_timeline
from paddler.store.client import Store
from paddler.store.keys import CLASSES
from paddler.store.results import Cancelled

_QUERY = ("state", "class", "tenant", "agent", "limit", "cursor")


def operator_request_routes(store: Store, clock: Clock) -> list[HTTPRouteHandler]:
    listing, views = RequestList(store), FleetView(store, clock)

    @get(paths("requests"), operation=REQUESTS)
    async def list_requests(request: AnyRequest) -> ASGIApp:
        """One call looks at a thousand requests at most: a page of a filter that few pass may be short, or empty, and
        goes on at `next_cursor` all the same. What moves between two pages may be on both, or on none."""
        query = read_query(request, _QUERY)
        where = Filter(
            state=read_choice(query, "state", STATES),
            request_class=read_choice(query, "class", CLASSES),
            tenant=query.get("tenant"),
            agent=query.get("agent"),
        )
        limit = read_limit(query, LIMIT, MAX_LIMIT)
        pool = await pool_in(request, store)
        try:
            page = await ask(listing.page(pool, where, limit=limit, cursor=query.get("cursor")))
        except ValueError:
            raise InvalidField("`cursor` must be `next_cursor` of another page.", param="cursor") from None
        return json_answer(RequestPage([_object(pool, one) for one in page.requests], page.cursor))

    @get("/api/v1/requests/{request_id:str}", operation=REQUEST)
    async def get_request_timeline(request_id: FromPath[str]) -> ASGIApp:
        return json_answer(_timeline(await ask(read_timeline(store, views, clock, checked_id(request_id)))))

    @post("/api/v1/requests/{request_id:str}/cancel", status_code=200, operation=CANCEL)
    async def cancel_any_request(request_id: FromPath[str]) -> ASGIApp:
        return await cancel(request_id)

    @delete("/api/v1/requests/{request_id:str}", status_code=200, operation=CANCEL)
    async def delete_request(request_id: FromPath[str]) -> ASGIApp:
        return await cancel(request_id)

    async def cancel(request_id: str) -> ASGIApp:
        pool = store.pool(pool_of(checked_id(request_id)))
        outcome = await ask(pool.cancel(request_id, CANCELLED_FRAME))
        match outcome:
            case Cancelled.CANCELLED | Cancelled.CANCELLING | Cancelled.ENDED:
                return json_answer(CancelAnswer(request_id, outcome.value))
            case Cancelled.GONE | Cancelled.FOLLOWED:
                raise not_found(request_id)

    return [list_requests, get_request_timeline, cancel_any_request, delete_request]


def _object(pool: str, one: Listed) -> RequestObject:
    return RequestObject(
        id=one.id,
        pool=pool,
        state=one.state,
        request_class=one.request_class,
        served_as=one.served_as,
        tenant=one.tenant,
        model=model_called(one.label) or one.model,
        position=one.position,
        agent=one.agent,
        agent_name=one.agent_name,
        attempt=one.attempt,
        opens=one.opens,
        deaths=one.deaths,
        accepted_at_ms=one.accepted_ms,
        waited_ms=one.waited_ms,
        running_ms=one.running_ms,
        prompt_tokens=one.prompt_tokens,
        tokens=one.num_tokens,
        is_background=one.is_background,
        is_cancelling=one.is_cancelling,
    )


def _timeline(one: Timeline) -> RequestTimeline:
    status = one.status
    events = [
        RequestEvent(event.event, event.at_ms, round(event.at_ms - status.accepted_ms), event.times)
        for event in one.events
    ]
    return RequestTimeline(
        id=status.request_id,
        pool=one.pool,
        state=cast("RequestState", status.state),
        request_class=status.request_class,
        served_as=one.served_as,
        tenant=status.tenant,
        model=model_called(status.label) or one.model,
        position=status.position,
        estimated_wait_ms=status.estimated_wait_ms,
        agent=one.agent,
        agent_name=one.agent_name,
        attempt=status.attempt,
        opens=status.opens,
        deaths=status.deaths,
        start_deadline_at_ms=status.start_deadline_ms,
        prompt_tokens=one.prompt_tokens,
        cached_tokens=status.route.cached_tokens,
        tokens=status.route.num_tokens,
        finish_reason=status.end.reason.value if status.end else None,
        error=RequestError(status.error.code, status.error.message) if status.error else None,
        is_background=status.is_background,
        is_cancelling=status.is_cancelling,
        now_ms=one.now_ms,
        events=events,
    )
