"""`/tokenize`, `/detokenize` and `/apply-template`, as llama.cpp's server has them, also under `/v1`."""

from __future__ import annotations

from functools import partial

from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec.structs import replace

from api.asking import A, AskedAnswer
from api.body import AnyRequest, read_aside, read_json_body
from api.openai.chat import chat_call_of
from api.openai.label import QuestionLabel, encode_label
from api.openai.operations import APPLY_TEMPLATE, DETOKENIZE, TOKENIZE
from api.openai.schema import NOT_YET
from api.openai.texts import answer_chunks
from api.openai.token_schema import DETOKENIZE_DECODER, TEMPLATE_DECODER, TOKENIZE_DECODER
from api.options import read_options
from api.validation import decode_body
from paddler.clock import Clock
from paddler.jobs.gateway import DEFAULT_POOL, Gateway
from paddler.payload import check_payload
from paddler.wire.agent import ApplyTemplate, Detokenize, Question, Tokenize
from paddler.wire.answers import Detokenized, Templated, Tokenized

TOKENIZE_PATHS = ["/tokenize", "/v1/tokenize"]
DETOKENIZE_PATHS = ["/detokenize", "/v1/detokenize"]
TEMPLATE_PATHS = ["/apply-template", "/v1/apply-template"]

_label = encode_label(QuestionLabel())


def token_routes(gateway: Gateway, clock: Clock) -> list[HTTPRouteHandler]:
    async def answer(request: AnyRequest, model: str | None, question: Question, kind: type[A]) -> AskedAnswer[A]:
        check_payload(question)
        how = await read_options(request, label=_label)
        pool = await gateway.resolve(model or DEFAULT_POOL)
        return AskedAnswer(partial(gateway.submit, pool, question, how), kind, answer_chunks, clock)

    @post(TOKENIZE_PATHS, status_code=200, operation=TOKENIZE)
    async def tokenize(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        asked = decode_body(body, TOKENIZE_DECODER, {})
        question = Tokenize(
            text=asked.content,
            adds_special=bool(asked.add_special),
            has_control=asked.parse_special is not False,
            with_pieces=bool(asked.with_pieces),
        )
        return await answer(request, asked.model, question, Tokenized)

    @post(DETOKENIZE_PATHS, status_code=200, operation=DETOKENIZE)
    async def detokenize(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        asked = decode_body(body, DETOKENIZE_DECODER, {})
        return await answer(request, asked.model, Detokenize(tokens=tuple(asked.tokens)), Detokenized)

    @post(TEMPLATE_PATHS, status_code=200, operation=APPLY_TEMPLATE)
    async def apply_template(request: AnyRequest) -> ASGIApp:
        body = await read_json_body(request)
        model, question = await read_aside(body, read_template_call)
        return await answer(request, model, question, Templated)

    return [tokenize, detokenize, apply_template]


def read_template_call(body: bytes) -> tuple[str, ApplyTemplate]:
    """Model and question. Raises `InvalidField`, or `ClientException` for bytes that are no JSON."""
    asked = decode_body(body, TEMPLATE_DECODER, NOT_YET)
    prompt = replace(
        chat_call_of(asked, random_seed=0).payload, add_generation_prompt=asked.add_generation_prompt is not False
    )
    return asked.model, ApplyTemplate(request=prompt)
