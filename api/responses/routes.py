"""The routes of the Responses API, the same on every service that has them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec.structs import replace

from api.access.caller import caller_of
from api.asking import AskedAnswer
from api.body import AnyRequest, read_json_body
from api.exchange import StreamedAnswer, WholeAnswer
from api.openai.label import QuestionLabel, ResponseLabel, encode_label
from api.options import read_options
from api.responses.answers import (
    render_response,
    render_status,
    request_id_of_response,
    stream_response,
)
from api.responses.call import receive_response_call
from api.responses.counting import check_counts, count_body
from api.responses.history import prepare
from api.responses.listing import read_page
from api.responses.objects import echo_of
from api.responses.operations import CANCEL, COUNT, CREATE, DELETE, GET, LIST_ITEMS, DeletedResponse
from api.responses.query import read_retrieval
from api.responses.told import ToldAsResponse
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway, Reply
from paddler.wire.agent import CountTokens
from paddler.wire.answers import Counted
from paddler.wire.stored import StoredResponse

PATH = "/v1/responses"


def response_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    """As with the other routes, the handlers close over their collaborators."""
    responses = gateway.responses

    @post(PATH, status_code=200, operation=CREATE)
    async def create_response(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        call = await receive_response_call(body, secrets.randbits(32))
        pool = await gateway.resolve(call.request.model)
        # A response tells with which sampling it was made.
        call = replace(call, payload=await gateway.desired.fill(pool, call.payload))
        label = ResponseLabel(
            call.request.model,
            int(clock.wall()),
            echo_of(call),
            has_logprobs=call.payload.logprobs is not None,
            is_background=call.is_background,
        )
        how = await read_options(
            request,
            label=encode_label(label),
            cache_key=call.request.prompt_cache_key,
            is_background=call.is_background,
        )
        prepared = await prepare(call, responses, how.tenant)
        submit = partial(gateway.submit, pool, prepared.payload, how)
        if call.is_stored:
            submit = partial(_submit_and_keep, gateway, submit, prepared.record)
        if call.request.stream:
            # In the background its client needs the id at once, to come back by.
            begins = call.is_background
            streamed = StreamedAnswer(submit, stream_response, gateway.position, clock, begins_at_once=begins)
            return ToldAsResponse(streamed)
        if not call.is_background:
            return ToldAsResponse(WholeAnswer(submit, render_response, clock))
        async with await submit() as reply:
            return await _status(reply.request_id)

    @post(f"{PATH}/input_tokens", status_code=200, operation=COUNT)
    async def count_input_tokens(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        call = await receive_response_call(body, secrets.randbits(32))
        check_counts(call)
        how = await read_options(request, label=encode_label(QuestionLabel()))
        prepared = await prepare(call, responses, how.tenant)
        pool = await gateway.resolve(call.request.model)
        submit = partial(gateway.submit, pool, CountTokens(request=prepared.payload), how)
        return ToldAsResponse(AskedAnswer(submit, Counted, count_body, clock))

    @get(f"{PATH}/{{response_id:str}}", operation=GET)
    async def get_response(request: AnyRequest, response_id: FromPath[str]) -> ASGIApp:
        request_id = request_id_of_response("response_id", response_id)
        await responses.read(request_id, caller_of(request.scope).tenant)
        how = read_retrieval(request, request_id)
        if not how.is_stream:
            return await _status(request_id)
        follow = partial(gateway.follow, request_id, offset=how.offset)
        render = partial(stream_response, after=how.after)
        return StreamedAnswer(follow, render, gateway.position, clock, begins_at_once=True)

    @post(f"{PATH}/{{response_id:str}}/cancel", status_code=200, operation=CANCEL)
    async def cancel_response(request: AnyRequest, response_id: FromPath[str]) -> ASGIApp:
        """One that has ended stays as it is."""
        request_id = request_id_of_response("response_id", response_id)
        await responses.read(request_id, caller_of(request.scope).tenant)
        await gateway.cancel(request_id)
        return await _status(request_id)

    @delete(f"{PATH}/{{response_id:str}}", status_code=200, operation=DELETE)
    async def delete_response(request: AnyRequest, response_id: FromPath[str]) -> DeletedResponse:
        """One that has not ended is cancelled."""
        request_id = request_id_of_response("response_id", response_id)
        await responses.read(request_id, caller_of(request.scope).tenant)
        await gateway.cancel(request_id)
        await responses.forget(request_id)
        return {"id": response_id, "object": "response", "deleted": True}

    @get(f"{PATH}/{{response_id:str}}/input_items", operation=LIST_ITEMS)
    async def list_input_items(request: AnyRequest, response_id: FromPath[str]) -> ASGIApp:
        request_id = request_id_of_response("response_id", response_id)
        page = read_page(request)
        record = await responses.read(request_id, caller_of(request.scope).tenant)
        return ASGIResponse(body=page.of(request_id, record), media_type="application/json")

    async def _status(request_id: str) -> ASGIApp:
        body = render_status(await gateway.status(request_id))
        return ASGIResponse(body=body, media_type="application/json", headers={"x-request-id": request_id})

    return [create_response, count_input_tokens, get_response, cancel_response, delete_response, list_input_items]


async def _submit_and_keep(gateway: Gateway, submit: Callable[[], Awaitable[Reply]], record: StoredResponse) -> Reply:
    """Nobody hears of a response before it is stored."""
    reply = await submit()
    try:
        await gateway.responses.keep(reply.request_id, record)
    except BaseException:
        async with reply:
            raise
    return reply
