"""`/v1/requests/*`: a request by its id, on any balancer, whichever took it."""

from __future__ import annotations

from functools import partial

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp

from api.access.caller import caller_of
from api.body import AnyRequest
from api.event_ids import LAST_EVENT_ID, read_offset
from api.exchange import StreamedAnswer
from api.inference.rendering import render_any
from api.openai.operations import CANCEL_REQUEST, GET_REQUEST, STREAM_REQUEST
from api.openai.status import request_chunks
from api.options import waits_on_disconnect
from api.pieces import JsonAnswer
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.ids import pool_of
from paddler.jobs.gateway import Gateway


def request_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    @get("/v1/requests/{request_id:str}", operation=GET_REQUEST)
    async def get_request(request: AnyRequest, request_id: FromPath[str]) -> ASGIApp:
        await check_owner(request, request_id)
        return JsonAnswer(request_chunks(await gateway.status(request_id)), clock)

    @get("/v1/requests/{request_id:str}/stream", operation=STREAM_REQUEST)
    async def stream_request(request: AnyRequest, request_id: FromPath[str]) -> ASGIApp:
        """From the beginning, or from behind the event that `Last-Event-ID` names."""
        await check_owner(request, request_id)
        offset = read_offset(request.headers.get(LAST_EVENT_ID.lower(), ""), request_id)
        follow = partial(gateway.follow, request_id, offset=offset, may_come_back=waits_on_disconnect(request))
        return StreamedAnswer(follow, render, gateway.position, clock)

    render = partial(render_any, item_timeout_ms=gateway.item_timeout_ms)

    @post("/v1/requests/{request_id:str}/cancel", status_code=200, operation=CANCEL_REQUEST)
    async def cancel_request(request: AnyRequest, request_id: FromPath[str]) -> ASGIApp:
        """Its state afterwards. One that runs stops within a step; one that has ended stays as it is."""
        await check_owner(request, request_id)
        await gateway.cancel(request_id)
        return JsonAnswer(request_chunks(await gateway.status(request_id)), clock)

    async def check_owner(request: AnyRequest, request_id: str) -> None:
        """Raises `RequestNotFound` for another tenant's, as if there were none."""
        await gateway.ownership.check(_checked(request_id), caller_of(request.scope).owner)

    return [get_request, stream_request, cancel_request]


def _checked(request_id: str) -> str:
    try:
        pool_of(request_id)
    except ValueError:
        raise InvalidField("This is no request id; it looks like <pool>.<22 characters>.", param="id") from None
    return request_id
