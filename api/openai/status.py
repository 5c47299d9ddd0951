"""A request as `/v1/requests` shows it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from api.anthropic.label import MessageLabel
from api.anthropic.objects import message_out
from api.native.label import NativeLabel
from api.openai.completion import chat_completion, usage_object
from api.openai.completions_render import text_completion
from api.openai.embeddings import embedding_chunks
from api.openai.errors import error_object
from api.openai.label import (
    ChatLabel,
    CompletionLabel,
    EmbeddingLabel,
    QuestionLabel,
    RerankLabel,
    ResponseLabel,
    label_of,
)
from api.openai.request_object import RequestFacts
from api.openai.rerank import rerank_object
from api.openai.texts import answer_chunks
from api.responses.answers import render_status
from paddler.errors import error_of
from paddler.ids import pool_of
from paddler.jobs.gateway import RequestStatus
from paddler.wire.answers import decode_answer


def request_chunks(status: RequestStatus) -> Iterator[bytes]:
    """An object in JSON, in chunks. Times are seconds since the epoch. `response` is the chat completion, the
    message, the response, the embeddings, the ranking or the answer of a request that is done."""
    yield msgspec.json.encode(_without_response(status))[:-1] + b',"response":'
    if status.state != "done" or status.end is None:
        yield b"null"
    elif isinstance(label := label_of(status), EmbeddingLabel):
        yield from embedding_chunks(status.vectors, status.end.usage, label)
    elif isinstance(label, MessageLabel):
        yield msgspec.json.encode(message_out(status.request_id, status.tokens, status.end, label, status.route.format))
    elif isinstance(label, RerankLabel):
        yield rerank_object(status.request_id, status.vectors, status.end.usage, label)
    elif isinstance(label, CompletionLabel):
        yield msgspec.json.encode(text_completion(status.request_id, status.tokens, status.end, label))
    elif isinstance(label, QuestionLabel):
        yield from answer_chunks(decode_answer(status.answer))
    elif isinstance(label, ResponseLabel):
        yield render_status(status)
    else:
        if isinstance(label, NativeLabel):
            label = ChatLabel(pool_of(status.request_id), round(status.accepted_ms / 1000))
        yield msgspec.json.encode(
            chat_completion(status.request_id, status.tokens, status.end, label, status.route.format)
        )
    yield b"}"


def _without_response(status: RequestStatus) -> RequestFacts:
    usage = usage_object(status.end.usage) if status.end is not None else None
    error = error_object(error_of(status.error))["error"] if status.error is not None else None
    return {
        "id": status.request_id,
        "object": "request",
        "state": status.state,
        "class": status.request_class,
        "tenant": status.tenant,
        "background": status.is_background,
        "cancelling": status.is_cancelling,
        "position": status.position,
        "estimated_wait_ms": status.estimated_wait_ms,
        "attempt": status.attempt,
        "deaths": status.deaths,
        "agent": status.route.agent_name,
        "cache": status.route.cache,
        "created_at": round(status.accepted_ms / 1000, 3),
        "started_at": _seconds(status.started_ms),
        "ended_at": _seconds(status.ended_ms),
        "start_deadline_at": _seconds(status.start_deadline_ms),
        "usage": usage,
        "error": error,
        "stream_url": f"/v1/requests/{status.request_id}/stream",
    }


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 3)
