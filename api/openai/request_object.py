"""A request by its id, as a type."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from api.anthropic.objects import MessageOut
from api.openai.completions_objects import TOLD, TextCompletion
from api.openai.objects import ChatCompletion, CompletionUsage, EmbeddingList, ErrorObject, Ranking
from api.operation import any_of
from api.responses.objects import ResponseObject
from paddler.store.keys import CLASSES

STATES = ("waiting", "assigned", "running", "done", "failed", "cancelled")
RESPONSES = (ChatCompletion, TextCompletion, EmbeddingList, Ranking, MessageOut, ResponseObject, *TOLD)

State = Annotated[str, Meta(extra_json_schema={"enum": STATES})]
Class = Annotated[str, Meta(extra_json_schema={"enum": CLASSES})]
Cache = Annotated[str, Meta(extra_json_schema={"enum": ("hit", "partial", "miss")})]

RequestFacts = TypedDict(
    "RequestFacts",
    {
        "id": str,
        "object": Annotated[str, Meta(extra_json_schema={"enum": ["request"]})],
        "state": State,
        "class": Class,
        "tenant": str,
        "background": bool,
        "cancelling": bool,
        "position": int | None,
        "estimated_wait_ms": int | None,
        "attempt": int,
        "deaths": int,
        "agent": str | None,
        "cache": Cache | None,
        "created_at": float,
        "started_at": float | None,
        "ended_at": float | None,
        "start_deadline_at": float | None,
        "usage": CompletionUsage | None,
        "error": ErrorObject | None,
        "stream_url": str,
    },
)


class RequestObject(RequestFacts):
    """Times are seconds since the epoch. `response` is what a request has said that is done."""

    response: Annotated[object, any_of(*RESPONSES, None)]
