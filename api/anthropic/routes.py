"""The routes of Anthropic's API, the same on every service that has them."""

from __future__ import annotations

import secrets
from functools import partial

from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from api.anthropic.answer import MessagesAnswer
from api.anthropic.call import read_count_call, read_message_call
from api.anthropic.label import encode_label
from api.anthropic.objects import count_body, message_body
from api.anthropic.operations import COUNT, MESSAGE
from api.anthropic.stream import message_stream
from api.asking import AskedAnswer
from api.body import AnyRequest, read_aside, read_json_body
from api.exchange import StreamedAnswer, WholeAnswer
from api.openai.label import QuestionLabel
from api.openai.label import encode_label as encode_question
from api.options import read_options
from paddler.clock import Clock
from paddler.jobs.gateway import Gateway
from paddler.wire.agent import CountTokens
from paddler.wire.answers import Counted


def anthropic_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    """The handlers close over their collaborators, as those of `api/openai/routes.py`."""

    @post("/v1/messages", status_code=200, operation=MESSAGE)
    async def create_message(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        call = await read_aside(body, partial(read_message_call, random_seed=secrets.randbits(32)))
        how = await read_options(request, label=encode_label(call.label))
        pool = await gateway.resolve(call.label.model)
        submit = partial(gateway.submit, pool, call.payload, how)
        if call.stream:
            streamed = StreamedAnswer(submit, partial(message_stream, label=call.label), gateway.position, clock)
            return MessagesAnswer(streamed, call.label.images)
        return MessagesAnswer(WholeAnswer(submit, partial(message_body, label=call.label), clock), call.label.images)

    @post("/v1/messages/count_tokens", status_code=200, operation=COUNT)
    async def count_tokens(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        call = await read_aside(body, read_count_call)
        how = await read_options(request, label=encode_question(QuestionLabel()))
        pool = await gateway.resolve(call.model)
        submit = partial(gateway.submit, pool, CountTokens(request=call.prompt), how)
        return MessagesAnswer(AskedAnswer(submit, Counted, count_body, clock), call.images)

    return [create_message, count_tokens]
