"""What the operators' routes beyond Paddler 4's say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from api.management import fleet_objects as objects
from api.management.objects import AgentList, BufferedRequests
from api.openai.objects import ErrorAnswer
from api.operation import EVENTS, JSON, Answer, Operation, Parameter, Stream
from paddler.errors import (
    AgentNotFound,
    Conflict,
    InvalidField,
    PaddlerError,
    PoolNotFound,
    QueueUnavailable,
    RequestNotFound,
)

LIMIT, MAX_LIMIT = 50, 500

_POOL = Parameter(name="name", where="path", description="A pool; `/api/v1/...` without one is `default`.")
_AGENT = Parameter(name="agent_id", where="path", description="`id` of an agent, of any pool.")
_REQUEST = Parameter(name="request_id", where="path", description="A request id: `<pool>.<22 characters>`.")
_LIMIT = Parameter(
    name="limit", where="query", type=Annotated[int, Meta(ge=1, le=MAX_LIMIT)], description="At most so many."
)
_CURSOR = Parameter(name="cursor", where="query", description="`next_cursor` of the page before.")


def _operation(
    summary: str,
    type_: Any,
    described: str,
    *parameters: Parameter,
    errors: tuple[type[PaddlerError], ...] = (),
    media: str = JSON,
) -> Operation:
    return Operation(
        summary=summary,
        tag="management",
        parameters=parameters,
        answers={200: Answer(description=described, content={media: type_})},
        errors=(*errors, QueueUnavailable),
        error_body=ErrorAnswer,
        error_headers=(
            Parameter(name="retry-after", type=int, description="Seconds."),
            Parameter(name="x-should-retry", description="Whether the same may succeed later."),
        ),
    )


def _told(summary: str, *more: Parameter) -> Operation:
    errors = (AgentNotFound, Conflict, InvalidField)
    return _operation(summary, objects.AgentOrder, "What it was told.", _AGENT, *more, errors=errors)


DRAIN = _told("Let an agent take no more requests.")
UNDRAIN = _told("Let an agent take requests again.")
REMOVE = _told(
    "Let an agent hand over and end.",
    Parameter(
        name="force",
        where="query",
        type=Literal["true", "false"],
        description="`true`: hand over now and forget it, whether it answers or not.",
    ),
)

REQUESTS = _operation(
    "Requests that have not ended.",
    objects.RequestPage,
    "A page of them.",
    _POOL,
    Parameter(
        name="state", where="query", type=Literal["waiting", "assigned", "running"], description="In this state."
    ),
    Parameter(
        name="class", where="query", type=Literal["interactive", "normal", "batch"], description="Of this class."
    ),
    Parameter(name="tenant", where="query", description="Of this tenant."),
    Parameter(name="agent", where="query", description="Given to the agent of this id."),
    _LIMIT,
    _CURSOR,
    errors=(InvalidField, PoolNotFound),
)
REQUEST = _operation(
    "What has happened to a request.",
    objects.RequestTimeline,
    "So far.",
    _REQUEST,
    errors=(InvalidField, RequestNotFound),
)
CANCEL = _operation(
    "Stop a request.",
    objects.CancelAnswer,
    "What became of it.",
    _REQUEST,
    errors=(InvalidField, RequestNotFound),
)
DEAD_LETTERS = _operation(
    "Requests that lost one agent after the other.",
    objects.DeadLetterPage,
    "A page of them.",
    _POOL,
    _LIMIT,
    _CURSOR,
    errors=(InvalidField, PoolNotFound),
)
REQUEUE = _operation(
    "Give a dead letter another chance.",
    objects.DeadLetterAnswer,
    "It waits again, in the background.",
    _REQUEST,
    errors=(Conflict, InvalidField, RequestNotFound),
)
DROP = _operation(
    "Forget a dead letter.",
    objects.DeadLetterAnswer,
    "It is forgotten.",
    _REQUEST,
    errors=(InvalidField, RequestNotFound),
)

POOLS = _operation("The pools.", objects.PoolList, "All of them.")
POOL = _operation("A pool.", objects.PoolObject, "As it is now.", _POOL, errors=(PoolNotFound,))
POOL_AGENTS = _operation("The agents of a pool.", AgentList, "As they are now.", _POOL, errors=(PoolNotFound,))
POOL_AGENTS_STREAM = _operation(
    "The agents of a pool, whenever they change.",
    Stream(AgentList),
    "All of them, each time.",
    _POOL,
    errors=(PoolNotFound,),
    media=EVENTS,
)
POOL_BUFFERED = _operation(
    "How many requests of a pool wait.", BufferedRequests, "The number.", _POOL, errors=(PoolNotFound,)
)
POOL_BUFFERED_STREAM = _operation(
    "How many requests of a pool wait, whenever that changes.",
    Stream(BufferedRequests),
    "The number, each time.",
    _POOL,
    errors=(PoolNotFound,),
    media=EVENTS,
)
AUTOSCALE = _operation(
    "A pool in numbers, for what scales it.",
    objects.AutoscaleObject,
    "As they are now.",
    _POOL,
    Parameter(
        name="target_demand_per_slot",
        where="query",
        type=Annotated[float, Meta(gt=0, le=1000)],
        description="Unfinished requests that one slot is to have; 1 by default.",
    ),
    Parameter(
        name="include_batch",
        where="query",
        type=Literal["true", "false"],
        description="`true`: the suggestion counts class batch, too.",
    ),
    errors=(InvalidField, PoolNotFound),
)
