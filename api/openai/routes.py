"""The routes of OpenAI's API, the same on every service that has them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec.structs import replace

from api.body import AnyRequest, read_json_body
from api.exchange import Rendering, StreamedAnswer, WholeAnswer
from api.gathered import GatheredAnswer
from api.interleaved import InterleavedAnswer
from api.openai.batch import answer_batch
from api.openai.chat import receive_chat_call
from api.openai.choices import ChoiceStream, choice_payloads, render_choices
from api.openai.completion import ChatStream, chat_completion
from api.openai.completions_routes import completion_routes, stream_completion
from api.openai.embeddings import read_embedding_call
from api.openai.label import ChatLabel, CompletionLabel, ResponseLabel, encode_label, label_of
from api.openai.model_routes import model_routes
from api.openai.operations import CHAT, EMBED, RERANK
from api.openai.rerank import RERANK_PATHS, read_rerank_call
from api.openai.status import request_chunks
from api.openai.token_routes import token_routes
from api.options import read_options
from api.responses.answers import stream_response
from api.responses.routes import response_routes
from paddler.clock import Clock
from paddler.errors import InvalidField
from paddler.jobs.gateway import Gateway, Reply
from paddler.wire.balancer import Finished, Tokens


def openai_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    """The handlers close over their collaborators: Litestar's injection costs 90 µs a request, these 0."""

    @post("/v1/chat/completions", status_code=200, operation=CHAT)
    async def create_chat_completion(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        call = await receive_chat_call(body, secrets.randbits(32))
        has_logprobs = call.payload.logprobs is not None
        chat_label = ChatLabel(call.model, int(clock.wall()), call.include_usage, has_logprobs)
        label = encode_label(chat_label)
        how = await read_options(request, label=label, cache_key=call.cache_key, is_background=call.is_background)
        pool = await gateway.resolve(call.model)
        if call.n > 1:
            if how.idempotency_key:
                raise InvalidField("`Idempotency-Key` needs `n` to be 1.", param="Idempotency-Key")
            first, *others = choice_payloads(call.payload, call.n)
            # As with embeddings: the deadline is for the call, and its client knows one id of several.
            way = replace(how, can_be_resumed=False, num_parts=call.n)
            submits = [partial(gateway.submit, pool, first, way)]
            way = replace(way, start_timeout_ms=0, num_parts=0)
            submits += [partial(gateway.submit, pool, one, way) for one in others]
            if not call.stream:
                return GatheredAnswer(submits, partial(render_choices, label=chat_label), clock)

            def render_choice_stream(reply: Reply) -> ChoiceStream:
                return ChoiceStream(reply.request_id, chat_label)

            return InterleavedAnswer(submits, render_choice_stream, gateway.position, clock)
        submit = partial(gateway.submit, pool, call.payload, how)
        if call.stream:
            return StreamedAnswer(submit, render_stream, gateway.position, clock)
        if not call.is_background:
            return WholeAnswer(submit, render_whole, clock)
        async with await submit() as reply:
            status = await gateway.status(reply.request_id)
        headers = {"location": f"/v1/requests/{reply.request_id}", "x-request-id": reply.request_id}
        return ASGIResponse(body=b"".join(request_chunks(status)), status_code=202, headers=headers)

    @post("/v1/embeddings", status_code=200, operation=EMBED)
    async def create_embeddings(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        return await answer_batch(gateway, clock, request, read_embedding_call(body))

    @post(RERANK_PATHS, status_code=200, operation=RERANK)
    async def create_ranking(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        return await answer_batch(gateway, clock, request, read_rerank_call(body))

    routes = [create_chat_completion, create_embeddings, create_ranking, *model_routes(gateway)]
    routes += [*response_routes(gateway, clock), *completion_routes(gateway, clock), *token_routes(gateway, clock)]
    return routes


def render_stream(reply: Reply) -> Rendering:
    """Chunks or events from where the reply is followed on, as its label says. Raises `InvalidField` for what has
    none."""
    label = label_of(reply)
    if isinstance(label, ResponseLabel):
        return stream_response(reply)
    if isinstance(label, CompletionLabel):
        return stream_completion(reply)
    return ChatStream(
        reply.request_id, _chat_label(reply), is_begun=reply.offset > 0, earlier=reply.earlier, route=reply.route
    )


def render_whole(reply: Reply, said: Sequence[Tokens], end: Finished) -> bytes:
    return msgspec.json.encode(chat_completion(reply.request_id, said, end, _chat_label(reply), reply.route.format))


def _chat_label(reply: Reply) -> ChatLabel:
    label = label_of(reply)
    if not isinstance(label, ChatLabel):
        raise InvalidField("This has no stream; GET /v1/requests/<id> has it when it is done.", param="id")
    return label
