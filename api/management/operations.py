"""What the routes of the management service say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from api.management.objects import AgentList, BufferedRequests, FleetHealth, HealthTrouble
from api.openai.objects import ErrorAnswer
from api.operation import EVENTS, JSON, TEXT, Answer, Operation, Parameter, Stream
from paddler.errors import QueueUnavailable

_ERRORS: dict[str, Any] = {
    "tag": "management",
    "errors": (QueueUnavailable,),
    "error_body": ErrorAnswer,
    "error_headers": (
        Parameter(name="retry-after", type=int, description="Seconds."),
        Parameter(name="x-should-retry", description="Whether the same may succeed later."),
    ),
}


def _now(type_: Any, description: str) -> dict[int, Answer]:
    return {200: Answer(description=description, content={JSON: type_})}


def _changes(type_: Any, description: str) -> dict[int, Answer]:
    return {200: Answer(description=description, content={EVENTS: Stream(type_)})}


AGENTS = Operation(summary="The agents.", answers=_now(AgentList, "As they are now."), **_ERRORS)
AGENTS_STREAM = Operation(
    summary="The agents, whenever they change.", answers=_changes(AgentList, "All of them, each time."), **_ERRORS
)
BUFFERED = Operation(
    summary="How many requests wait for a slot.", answers=_now(BufferedRequests, "The number."), **_ERRORS
)
BUFFERED_STREAM = Operation(
    summary="How many requests wait, whenever that changes.",
    answers=_changes(BufferedRequests, "The number, each time."),
    **_ERRORS,
)
HEALTH = Operation(
    summary="This process answers.",
    tag="service",
    parameters=(Parameter(name="Accept", description="With `application/json` all pools together in numbers."),),
    answers={
        200: Answer(description="`OK`, or the fleet in numbers.", content={TEXT: str, JSON: FleetHealth}),
        503: Answer(description="Asked for numbers: Redis cannot be reached.", content={JSON: HealthTrouble}),
    },
)
