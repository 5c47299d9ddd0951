"""The routes of Paddler 4's inference service."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from litestar import post, websocket
from litestar.connection import WebSocket
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler, WebsocketRouteHandler
from litestar.types import ASGIApp

from api.access.caller import caller_of
from api.body import AnyRequest, read_json_body
from api.cors import is_allowed_origin
from api.native.calls import Read, read_conversation, read_raw_prompt, receive_call
from api.native.embeddings import EmbeddingLines, read_embedding_batch
from api.native.enabled import check_embeddings, check_generation
from api.native.errors import HANDLERS, ToldInStream
from api.native.handshake import refusal
from api.native.label import NativeLabel
from api.native.lines import NativeLines
from api.native.operations import CONTINUE_CONVERSATION, CONTINUE_RAW_PROMPT, EMBED_BATCH
from api.native.origin import is_own_origin
from api.native.socket import ASGISend, InferenceSocket
from api.openai.label import encode_label, label_of
from api.options import read_options
from paddler.clock import Clock
from paddler.jobs.gateway import DEFAULT_POOL, Gateway, Reply

AnySocket = WebSocket[Any, Any, State]


def native_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler | WebsocketRouteHandler]:
    @post(
        "/api/v1/continue_from_conversation_history",
        status_code=200,
        exception_handlers=HANDLERS,
        operation=CONTINUE_CONVERSATION,
    )
    async def continue_from_conversation_history(request: AnyRequest) -> ASGIApp:
        return await generate(request, read_conversation)

    @post(
        "/api/v1/continue_from_raw_prompt", status_code=200, exception_handlers=HANDLERS, operation=CONTINUE_RAW_PROMPT
    )
    async def continue_from_raw_prompt(request: AnyRequest) -> ASGIApp:
        return await generate(request, read_raw_prompt)

    async def generate(request: AnyRequest, read: Read) -> ASGIApp:
        body = await read_json_body(request)
        lines = partial(NativeLines, label=native_label, clock=clock, item_timeout_ms=gateway.item_timeout_ms)
        try:
            call = await receive_call(read, body, secrets.randbits(32))
        except ToldInStream as refusal:
            await read_options(request, label=b"")  # what is wrong with a header is no result
            return lines(_raising(refusal))
        how = await read_options(request, label=encode_label(call.label))
        await check_generation(gateway)
        return lines(partial(gateway.submit, DEFAULT_POOL, call.payload, how))

    @post("/api/v1/generate_embedding_batch", status_code=200, exception_handlers=HANDLERS, operation=EMBED_BATCH)
    async def generate_embedding_batch(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        batch = read_embedding_batch(body)
        how = await read_options(request, label=b"")
        await check_embeddings(gateway)
        num_slots = await gateway.num_slots(DEFAULT_POOL)
        parameters = (await gateway.desired.told(DEFAULT_POOL)).state.inference_parameters
        is_one = bool(how.idempotency_key)
        tickets = batch.tickets(num_slots, most_each=parameters.embedding_batch_size, is_one=is_one)
        return EmbeddingLines(gateway, batch, tickets, how, clock)

    @websocket("/api/v1/inference_socket")
    async def inference_socket(socket: AnySocket) -> None:
        if not (is_own_origin(socket.headers) or is_allowed_origin(socket.scope)):
            await socket.close()
            return
        if events := refusal(socket.headers):
            send: ASGISend = socket.send
            for event in events:
                await send(event)
            return
        await socket.accept()
        await InferenceSocket(gateway, socket.send, caller_of(socket.scope)).run(socket.receive)

    return [
        continue_from_conversation_history,
        continue_from_raw_prompt,
        generate_embedding_batch,
        inference_socket,
    ]


def native_label(reply: Reply) -> NativeLabel:
    """What a request was submitted with. One with an `Idempotency-Key` may be another protocol's."""
    label = label_of(reply)
    return label if isinstance(label, NativeLabel) else NativeLabel()


def _raising(error: Exception) -> Callable[[], Awaitable[Reply]]:
    async def submit() -> Reply:
        raise error

    return submit
