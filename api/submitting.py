"""What all routes that submit a request to the queue say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from api.body import UnsupportedMediaType
from api.operation import EVENTS, JSON, Answer, Parameter, Stream
from api.options import DISCONNECTS, MAX_HINT_LENGTH, MAX_KEY_LENGTH, MAX_START_TIMEOUT_MS, ON_DISCONNECT
from paddler import errors
from paddler.store.keys import CLASSES

ON_DISCONNECT_HEADER = Parameter(
    name=ON_DISCONNECT,
    type=Annotated[str, Meta(extra_json_schema={"enum": DISCONNECTS})],
    description="`wait`: a connection that breaks cancels nothing; go on at /v1/requests/{id}/stream, or cancel.",
)
SUBMIT_HEADERS = (
    ON_DISCONNECT_HEADER,
    Parameter(
        name="X-Session-ID",
        type=Annotated[str, Meta(max_length=MAX_HINT_LENGTH)],
        description="A conversation: of agents that hold as much of the prompt, the one it was with is preferred.",
    ),
    Parameter(
        name="X-Conversation-Id",
        type=Annotated[str, Meta(max_length=MAX_HINT_LENGTH)],
        description="The same, for clients that call it so.",
    ),
    Parameter(
        name="X-Request-Timeout",
        type=Annotated[int, Meta(ge=1, le=MAX_START_TIMEOUT_MS)],
        description="Milliseconds within which a slot must become free.",
    ),
    Parameter(
        name="X-Request-Class",
        type=Annotated[str, Meta(extra_json_schema={"enum": CLASSES})],
        description="Which requests come first.",
    ),
    Parameter(
        name="Idempotency-Key",
        type=Annotated[str, Meta(min_length=1, max_length=MAX_KEY_LENGTH, pattern="^[!-~]([ -~]*[!-~])?$")],
        description="The same key and body again is the same request and its whole answer.",
    ),
)

REQUEST_ID = Parameter(name="x-request-id", description="The request's id in the queue, for `/v1/requests/{id}`.")
LIMITS = (
    Parameter(
        name="x-ratelimit-limit-requests",
        type=int,
        description="How many requests may wait; of a key with a limit, how many it may send in a minute.",
    ),
    Parameter(name="x-ratelimit-remaining-requests", type=int, description="How many more may."),
    Parameter(name="x-ratelimit-reset-requests", description="When all of them may again, as `1m30s`."),
    Parameter(name="x-ratelimit-limit-tokens", type=int, description="Tokens that the key may use in a minute."),
    Parameter(name="x-ratelimit-remaining-tokens", type=int, description="How many are left."),
    Parameter(name="x-ratelimit-reset-tokens", description="When all of them are there again, as `1m30s`."),
)
ANSWER_HEADERS = (
    REQUEST_ID,
    *LIMITS,
    Parameter(name="x-paddler-agent", description="Name of the agent that answers."),
    Parameter(name="x-paddler-attempt", type=int, description="How often the request was given to an agent."),
    Parameter(
        name="x-paddler-cache",
        type=Literal["hit", "partial", "miss"],
        description="How much of the prompt was in the agent's KV cache.",
    ),
    Parameter(name="x-queue-position", type=int, description="How many requests are before one that has to wait."),
)
ERROR_HEADERS = (
    REQUEST_ID,
    *LIMITS,
    Parameter(name="retry-after", type=int, description="Seconds."),
    Parameter(name="x-should-retry", type=Literal["true", "false"], description="Whether the same may succeed later."),
)

BODY_ERRORS = (errors.InvalidField, errors.BodyTooLarge, UnsupportedMediaType)
ANSWER_ERRORS = (
    *(errors.ContextExceeded, errors.ImageDecodingFailed, errors.MultimodalNotSupported, errors.RequestCancelled),
    *(errors.QueueUnavailable, errors.ShuttingDown, errors.StartTimeout, errors.ItemTimeout, errors.AgentsLost),
    *(errors.RequestLost, errors.EngineFailed, errors.UpstreamFailed, errors.UnknownFailure),
)
"""What a request may end with after it was accepted."""
SUBMIT_ERRORS = (
    *BODY_ERRORS,
    *(errors.ModelNotFound, errors.IdempotencyMismatch, errors.BufferFull, errors.TenantBufferFull),
    *(errors.RateLimited, errors.TooManyInFlight, errors.BudgetExhausted, errors.ImageFetchesFull),
    *ANSWER_ERRORS,
)


def whole(type_: Any, description: str) -> Answer:
    """An answer that comes when the request is done."""
    return Answer(description=description, content={JSON: type_}, headers=ANSWER_HEADERS)


def whole_or_events(type_: Any, events: Stream, description: str) -> Answer:
    """As `whole`, or with `stream` as server-sent events."""
    return Answer(description=description, content={JSON: type_, EVENTS: events}, headers=ANSWER_HEADERS)


def only_events(events: Stream, description: str) -> Answer:
    return Answer(description=description, content={EVENTS: events}, headers=ANSWER_HEADERS)
