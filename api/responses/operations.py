"""What the routes of the Responses API say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from api.openai.objects import ErrorAnswer
from api.operation import EVENTS as SSE
from api.operation import JSON, Answer, Operation, Parameter, Stream, any_of
from api.responses import call
from api.responses.counting import InputTokens
from api.responses.events import EVENTS
from api.responses.listing import DEFAULT_LIMIT, ITEMS, MAX_LIMIT, ItemList
from api.responses.objects import ResponseObject
from api.responses.query import MAX_NUMBER
from api.submitting import (
    ANSWER_ERRORS,
    ANSWER_HEADERS,
    ERROR_HEADERS,
    REQUEST_ID,
    SUBMIT_ERRORS,
    SUBMIT_HEADERS,
    whole,
    whole_or_events,
)
from paddler.errors import InvalidField, QueueUnavailable, RequestNotFound


class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: bool


_OF_ALL: dict[str, Any] = {"tag": "responses", "error_body": ErrorAnswer, "error_headers": ERROR_HEADERS}
_NOT_FOUND = (InvalidField, RequestNotFound, QueueUnavailable)
_ID = Parameter(name="response_id", where="path", description="`id` of the response.")
_EVENTS = Stream(Annotated[object, any_of(*EVENTS)])
_SEEN = Answer(description="As it is now.", content={JSON: ResponseObject}, headers=(REQUEST_ID,))
_INCLUDE = tuple(
    Parameter(name=name, type=list[str], where="query", description="Without effect: all that there is comes.")
    for name in ("include", "include[]")
)

CREATE = Operation(
    summary="The next turn of a conversation.",
    request=call.DECODER,
    parameters=SUBMIT_HEADERS,
    answers={200: whole_or_events(ResponseObject, _EVENTS, "The response, or with `stream` its events.")},
    errors=(*SUBMIT_ERRORS, RequestNotFound),
    parts=EVENTS,
    **_OF_ALL,
)
COUNT = Operation(
    summary="How many tokens the prompt of a response has.",
    request=call.DECODER,
    parameters=SUBMIT_HEADERS,
    answers={200: whole(InputTokens, "The number.")},
    errors=(*SUBMIT_ERRORS, RequestNotFound),
    **_OF_ALL,
)
GET = Operation(
    summary="A stored response.",
    parameters=(
        _ID,
        Parameter(name="stream", type=bool, where="query", description="Its events, from the first on."),
        Parameter(
            name="starting_after",
            type=Annotated[int, Meta(ge=0, le=MAX_NUMBER)],
            where="query",
            description="With `stream`: the events behind the one of this number.",
        ),
        *_INCLUDE,
        Parameter(name="include_obfuscation", type=bool, where="query", description="Only false."),
        Parameter(name="Last-Event-ID", description="`id` of the last event that was received."),
    ),
    answers={
        200: Answer(
            description="As it is now, or its events.",
            content={JSON: ResponseObject, SSE: _EVENTS},
            headers=ANSWER_HEADERS,
        )
    },
    errors=(*_NOT_FOUND, *ANSWER_ERRORS),
    parts=EVENTS,
    **_OF_ALL,
)
CANCEL = Operation(summary="Stop a response.", parameters=(_ID,), answers={200: _SEEN}, errors=_NOT_FOUND, **_OF_ALL)
DELETE = Operation(
    summary="Forget a response.",
    parameters=(_ID,),
    answers={200: Answer(description="It is forgotten.", content={JSON: DeletedResponse})},
    errors=_NOT_FOUND,
    **_OF_ALL,
)
LIST_ITEMS = Operation(
    summary="What a response was asked with.",
    parameters=(
        _ID,
        Parameter(
            name="limit",
            type=Annotated[int, Meta(ge=1, le=MAX_LIMIT)],
            where="query",
            description=f"Items of a page; {DEFAULT_LIMIT} without.",
        ),
        Parameter(
            name="order", type=Literal["asc", "desc"], where="query", description="The last first, or the first."
        ),
        Parameter(name="after", where="query", description="`id` of the last item of the page before."),
        *_INCLUDE,
    ),
    answers={200: Answer(description="A page of its input.", content={JSON: ItemList})},
    errors=_NOT_FOUND,
    parts=ITEMS,
    **_OF_ALL,
)
