"""`/tokenize`, `/detokenize` and `/apply-template`, as llama.cpp's server has them, also under `/v1`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec import Meta, Struct
from msgspec.structs import replace

from api.asking import A, AskedAnswer
from api.body import AnyRequest, read_aside, read_json_body
from api.openai.chat import chat_call_of
from api.openai.label import QuestionLabel, encode_label
from api.openai.schema import NOT_YET, ChatRequest
from api.openai.texts import answer_object
from api.options import read_options
from api.validation import decode_body
from paddler.clock import Clock
from paddler.jobs.gateway import DEFAULT_POOL, Gateway
from paddler.payload import MAX_QUESTION_TOKENS, check_payload
from paddler.wire.agent import ApplyTemplate, Detokenize, Question, Tokenize
from paddler.wire.answers import Answer, Detokenized, Templated, Tokenized

TOKENIZE_PATHS = ["/tokenize", "/v1/tokenize"]
DETOKENIZE_PATHS = ["/detokenize", "/v1/detokenize"]
TEMPLATE_PATHS = ["/apply-template", "/v1/apply-template"]

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /tokenize`; `null` means absent."""

    content: str
    model: ModelName | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /detokenize`."""

    tokens: Annotated[list[TokenId], Meta(max_length=MAX_QUESTION_TOKENS)]
    model: ModelName | None = None


class TemplateRequest(ChatRequest, kw_only=True):
    """`POST /apply-template`: a chat request as it would be sent. What of it is not part of the prompt changes nothing.
    `add_generation_prompt` false: without the words that begin an answer."""

    model: ModelName = DEFAULT_POOL
    add_generation_prompt: bool | None = None


_tokenize_decoder = msgspec.json.Decoder(TokenizeRequest)
_detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest)
_template_decoder = msgspec.json.Decoder(TemplateRequest)
_label = encode_label(QuestionLabel())


def token_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    async def answer(
        request: AnyRequest, body: bytes, model: str | None, question: Question, kind: type[A]
    ) -> AskedAnswer[A]:
        check_payload(question)
        how = read_options(request, body, label=_label)
        pool = await gateway.resolve(model or DEFAULT_POOL)
        return AskedAnswer(partial(gateway.submit, pool, question, how), kind, _render, clock)

    @post(TOKENIZE_PATHS, status_code=200)
    async def tokenize(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        asked = decode_body(body, _tokenize_decoder, {})
        question = Tokenize(
            text=asked.content,
            adds_special=bool(asked.add_special),
            has_control=asked.parse_special is not False,
            with_pieces=bool(asked.with_pieces),
        )
        return await answer(request, body, asked.model, question, Tokenized)

    @post(DETOKENIZE_PATHS, status_code=200)
    async def detokenize(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        asked = decode_body(body, _detokenize_decoder, {})
        return await answer(request, body, asked.model, Detokenize(tokens=tuple(asked.tokens)), Detokenized)

    @post(TEMPLATE_PATHS, status_code=200)
    async def apply_template(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        model, question = await read_aside(body, read_template_call)
        return await answer(request, body, model, question, Templated)

    return [tokenize, detokenize, apply_template]


def read_template_call(body: bytes) -> tuple[str, ApplyTemplate]:
    """Model and question. Raises `InvalidField`, or `ClientException` for bytes that are no JSON."""
    asked = decode_body(body, _template_decoder, NOT_YET)
    prompt = replace(
        chat_call_of(asked, random_seed=0).payload, add_generation_prompt=asked.add_generation_prompt is not False
    )
    return asked.model, ApplyTemplate(request=prompt)


def _render(answer: Answer) -> bytes:
    return msgspec.json.encode(answer_object(answer))
