"""What the routes of Anthropic's API say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec.structs import replace

from api.anthropic import call
from api.anthropic.errors import ErrorBody
from api.anthropic.events import EVENTS
from api.anthropic.objects import CountOut, MessageOut
from api.operation import Answer, Operation, Parameter, Stream, any_of
from api.submitting import ERROR_HEADERS, SUBMIT_ERRORS, SUBMIT_HEADERS, whole, whole_or_events

_ID = Parameter(name="request-id", description="The request's id in the queue, else one made for this answer.")
_SUBMITS: dict[str, Any] = {
    "tag": "anthropic",
    "parameters": SUBMIT_HEADERS,
    "errors": SUBMIT_ERRORS,
    "error_body": ErrorBody,
    # Of what bounds a client only chat completions tell in their errors.
    "error_headers": (_ID, *(one for one in ERROR_HEADERS if not one.name.startswith("x-ratelimit"))),
}


def _with_id(answer: Answer) -> Answer:
    return replace(answer, headers=(*answer.headers, _ID))


MESSAGE = Operation(
    summary="The next message of a conversation.",
    request=call.DECODER,
    answers={
        200: _with_id(
            whole_or_events(
                MessageOut, Stream(Annotated[object, any_of(*EVENTS)]), "The message, or with `stream` its events."
            )
        )
    },
    parts=EVENTS,
    **_SUBMITS,
)
COUNT = Operation(
    summary="How many tokens a message's prompt has.",
    request=call.COUNT_DECODER,
    answers={200: _with_id(whole(CountOut, "The number."))},
    **_SUBMITS,
)
