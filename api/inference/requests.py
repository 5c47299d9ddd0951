"""`/v1/requests/*`: a request by its id, on any balancer, whichever took it."""

from __future__ import annotations

from functools import partial

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import ASGIApp

from api.body import AnyRequest
from api.exchange import Rendering, StreamedAnswer
from api.native.events import NativeEvents
from api.native.label import NativeLabel
from api.openai.label import label_of
from api.openai.routes import render_stream
from api.openai.status import request_chunks
from api.pieces import JsonAnswer
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.ids import pool_of
from paddler.jobs.gateway import Gateway, Reply

LAST_EVENT_ID = "Last-Event-ID"
MAX_OFFSET = 2**32 - 1


def request_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    @get("/v1/requests/{request_id:str}")
    async def get_request(request_id: FromPath[str]) -> ASGIApp:
        return JsonAnswer(request_chunks(await gateway.status(_checked(request_id))), clock)

    @get("/v1/requests/{request_id:str}/stream")
    async def stream_request(request: AnyRequest, request_id: FromPath[str]) -> ASGIApp:
        """From the beginning, or from behind the event that `Last-Event-ID` names."""
        offset = read_offset(request.headers.get(LAST_EVENT_ID.lower(), ""), _checked(request_id))
        return StreamedAnswer(partial(gateway.follow, request_id, offset=offset), render, gateway.position, clock)

    def render(reply: Reply) -> Rendering:
        label = label_of(reply)
        if isinstance(label, NativeLabel):
            return NativeEvents(reply, label, item_timeout_ms=gateway.item_timeout_ms)
        return render_stream(reply)

    @post("/v1/requests/{request_id:str}/cancel", status_code=200)
    async def cancel_request(request_id: FromPath[str]) -> ASGIApp:
        """Its state afterwards. One that runs stops within a step; one that has ended stays as it is."""
        await gateway.cancel(_checked(request_id))
        return JsonAnswer(request_chunks(await gateway.status(request_id)), clock)

    return [get_request, stream_request, cancel_request]


def read_offset(event_id: str, request_id: str) -> int:
    """The journal offset of an event's id, `<request id>:<offset>` or the offset alone. Raises `InvalidField`."""
    named, colon, text = event_id.strip().rpartition(":")
    if not text and not colon:
        return 0
    is_ours = named == request_id if colon else True
    if not (is_ours and text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_OFFSET):
        raise InvalidField(
            f"`{LAST_EVENT_ID}` must be the id of an event of this request, {request_id}:<offset>.",
            param=LAST_EVENT_ID,
        )
    return int(text)


def _checked(request_id: str) -> str:
    try:
        pool_of(request_id)
    except ValueError:
        raise InvalidField("This is no request id; it looks like <pool>.<22 characters>.", param="id") from None
    return request_id
