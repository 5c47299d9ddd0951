"""What the routes of OpenAI's API say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

from api.anthropic.events import EVENTS as MESSAGE_EVENTS
from api.native.objects import ENVELOPES
from api.openai import chat, completions_call, embeddings, rerank
from api.openai.completions_objects import (
    DetokenizedText,
    TemplatedPrompt,
    TextCompletion,
    TextCompletionChunk,
    TokenList,
)
from api.openai.objects import (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    ErrorAnswer,
    Ranking,
)
from api.openai.request_object import RESPONSES, RequestObject
from api.openai.token_schema import DETOKENIZE_DECODER, TEMPLATE_DECODER, TOKENIZE_DECODER
from api.operation import JSON, Answer, Operation, Parameter, Stream, any_of
from api.responses.events import EVENTS as RESPONSE_EVENTS
from api.submitting import (
    ANSWER_ERRORS,
    ERROR_HEADERS,
    ON_DISCONNECT_HEADER,
    REQUEST_ID,
    SUBMIT_ERRORS,
    SUBMIT_HEADERS,
    only_events,
    whole,
    whole_or_events,
)
from paddler.errors import EmbeddingsOff, InvalidField, QueueUnavailable, RequestNotFound

ERRORS: dict[str, Any] = {"error_body": ErrorAnswer, "error_headers": ERROR_HEADERS}
SUBMITS: dict[str, Any] = {**ERRORS, "parameters": SUBMIT_HEADERS, "errors": SUBMIT_ERRORS}
"""Of a route that submits a request and fails as OpenAI does."""

CHAT_EVENTS = Stream(Annotated[object, any_of(ChatCompletionChunk, ErrorAnswer)], "[DONE]")
"""Chunks, and an error before the end if it comes to that."""
CHAT_PARTS = (ChatCompletionChunk, ErrorAnswer, *RESPONSES)
TEXT_EVENTS = Stream(Annotated[object, any_of(TextCompletionChunk, ErrorAnswer)], "[DONE]")
ALL_EVENTS = (
    *(ChatCompletionChunk, TextCompletionChunk, ErrorAnswer),
    *(*MESSAGE_EVENTS, *RESPONSE_EVENTS, *ENVELOPES),
)

ACCEPTED = Answer(
    description="With `background`: accepted, and goes on without a client.",
    content={JSON: RequestObject},
    headers=(
        REQUEST_ID,
        Parameter(name="location", description="Where the request can be seen.", is_required=True),
    ),
)

CHAT = Operation(
    summary="Continue a conversation.",
    tag="openai",
    request=chat.DECODER,
    answers={
        200: whole_or_events(ChatCompletion, CHAT_EVENTS, "A message, or with `stream` its chunks."),
        202: ACCEPTED,
    },
    parts=CHAT_PARTS,
    **SUBMITS,
)
COMPLETE = Operation(
    summary="Continue a text.",
    tag="openai",
    request=completions_call.DECODER,
    answers={
        200: whole_or_events(TextCompletion, TEXT_EVENTS, "The text, or with `stream` its chunks."),
        202: ACCEPTED,
    },
    parts=(TextCompletionChunk, ErrorAnswer, *RESPONSES),
    **SUBMITS,
)
TOKENIZE = Operation(
    summary="The tokens of a text.",
    tag="llama.cpp",
    request=TOKENIZE_DECODER,
    answers={200: whole(TokenList, "The tokens.")},
    **SUBMITS,
)
DETOKENIZE = Operation(
    summary="The text of some tokens.",
    tag="llama.cpp",
    request=DETOKENIZE_DECODER,
    answers={200: whole(DetokenizedText, "The text.")},
    **SUBMITS,
)
APPLY_TEMPLATE = Operation(
    summary="The prompt that a conversation is for the model.",
    tag="llama.cpp",
    request=TEMPLATE_DECODER,
    answers={200: whole(TemplatedPrompt, "The prompt.")},
    **SUBMITS,
)
_EMBEDS: dict[str, Any] = {**SUBMITS, "errors": (*SUBMIT_ERRORS, EmbeddingsOff)}
EMBED = Operation(
    summary="A vector for each of some texts.",
    tag="openai",
    request=embeddings.DECODER,
    answers={200: whole(EmbeddingList, "The vectors, in the order of the texts.")},
    **_EMBEDS,
)
RERANK = Operation(
    summary="Order documents by how well they answer a query.",
    tag="openai",
    request=rerank.DECODER,
    answers={200: whole(Ranking, "The documents' scores, the best first.")},
    **SUBMITS,
)

_ID = Parameter(name="request_id", where="path", description="As `x-request-id` of an answer told it.")
_SEEN = Answer(description="Its state.", content={JSON: RequestObject})
_BY_ID: dict[str, Any] = {**ERRORS, "tag": "requests", "parts": CHAT_PARTS}
_NOT_FOUND = (InvalidField, RequestNotFound, QueueUnavailable)

GET_REQUEST = Operation(
    summary="A request by its id.", parameters=(_ID,), answers={200: _SEEN}, errors=_NOT_FOUND, **_BY_ID
)
CANCEL_REQUEST = Operation(
    summary="Stop a request.", parameters=(_ID,), answers={200: _SEEN}, errors=_NOT_FOUND, **_BY_ID
)
STREAM_REQUEST = Operation(
    summary="The stream of a request, from its beginning or from behind an event.",
    parameters=(
        _ID,
        Parameter(name="Last-Event-ID", description="`id` of the last event that was received."),
        ON_DISCONNECT_HEADER,
    ),
    answers={
        200: only_events(
            Stream(Annotated[object, any_of(*ALL_EVENTS)], "[DONE]"),
            "Events, as the route that took the request streams them. `[DONE]` ends those of OpenAI's completions.",
        )
    },
    errors=(*_NOT_FOUND, *ANSWER_ERRORS),
    parts=ALL_EVENTS,
    **ERRORS,
    tag="requests",
)
