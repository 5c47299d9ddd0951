"""A request as `/v1/requests` shows it."""

from __future__ import annotations

from typing import Any

from api.openai.completion import chat_completion, usage_object
from api.openai.embeddings import embedding_list
from api.openai.errors import error_object
from api.openai.label import EmbeddingLabel, label_of
from paddler.errors import error_of
from paddler.jobs.gateway import RequestStatus


def request_object(status: RequestStatus) -> dict[str, Any]:
    """Times are seconds since the epoch. `response` is the chat completion, or the embeddings, of a request that is
    done."""
    usage = response = error = None
    if status.end is not None:
        usage = usage_object(status.end.usage)
        if status.state == "done":
            label = label_of(status)
            if isinstance(label, EmbeddingLabel):
                response = embedding_list(status.vectors, status.end.usage, label)
            else:
                response = chat_completion(status.request_id, status.tokens, status.end, label)
    if status.error is not None:
        error = error_object(error_of(status.error))["error"]
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
        "created_at": _seconds(status.accepted_ms),
        "started_at": _seconds(status.started_ms),
        "ended_at": _seconds(status.ended_ms),
        "start_deadline_at": _seconds(status.start_deadline_ms),
        "usage": usage,
        "error": error,
        "response": response,
        "stream_url": f"/v1/requests/{status.request_id}/stream",
    }


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 3)
