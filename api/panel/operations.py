"""What the panel's own routes say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Any

import msgspec

from api.openai.objects import ErrorAnswer
from api.operation import EVENTS, JSON, Answer, Operation, Parameter, Stream
from api.panel.objects import Change, HistoryAnswer, Joining, LoginRequest, Me, SettingsAnswer
from api.submitting import BODY_ERRORS
from paddler.errors import Forbidden, InvalidField, QueueUnavailable, Unauthorized
from paddler.metrics.history import TimedSample

LOGIN_DECODER = msgspec.json.Decoder(LoginRequest)

_COMMON: dict[str, Any] = {
    "tag": "panel",
    "error_body": ErrorAnswer,
    "error_headers": (
        Parameter(name="retry-after", type=int, description="Seconds."),
        Parameter(name="x-should-retry", description="Whether the same may succeed later."),
    ),
}
_COOKIE = Parameter(name="set-cookie", description="The session.")
WRITES = Parameter(name="X-Paddler-Panel", description="Anything; wanted where no API key is sent.")

ME = Operation(summary="Who looks.", answers={200: Answer(description="You.", content={JSON: Me})}, **_COMMON)
LOGIN = Operation(
    summary="Begin a session with an API key of the scope `management`.",
    request=LOGIN_DECODER,
    parameters=(WRITES,),
    answers={200: Answer(description="You; the session is in a cookie.", content={JSON: Me}, headers=(_COOKIE,))},
    errors=(*BODY_ERRORS, InvalidField, Unauthorized, Forbidden, QueueUnavailable),
    **_COMMON,
)
LOGOUT = Operation(
    summary="End the session.",
    parameters=(WRITES,),
    answers={200: Answer(description="You, as nobody.", content={JSON: Me}, headers=(_COOKIE,))},
    errors=(Forbidden, QueueUnavailable),
    **_COMMON,
)
HISTORY = Operation(
    summary="The last 15 minutes of every pool.",
    answers={200: Answer(description="For charts.", content={JSON: HistoryAnswer})},
    errors=(QueueUnavailable,),
    **_COMMON,
)
JOINING = Operation(
    summary="Where an agent finds this fleet.",
    answers={200: Answer(description="As this balancer does.", content={JSON: Joining})},
    **_COMMON,
)
SETTINGS = Operation(
    summary="Addresses, limits and versions, and how Redis is.",
    answers={200: Answer(description="As they are now.", content={JSON: SettingsAnswer})},
    **_COMMON,
)
LIVE = Operation(
    summary="Everything that moves, as it changes.",
    parameters=(Parameter(name="topics", where="query", description="With commas between; by default all."),),
    answers={
        200: Answer(
            description="Events `change`, and `samples` of the charts.",
            content={EVENTS: Stream(dict[str, Change] | list[TimedSample])},
        )
    },
    errors=(InvalidField,),
    **_COMMON,
)
