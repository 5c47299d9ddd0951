"""What the routes of the desired state say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from api.body import UnsupportedMediaType
from api.management.desired_objects import StateHistory, WholeVersion
from api.openai.objects import ErrorAnswer
from api.operation import JSON, Answer, Operation, Parameter
from paddler import errors
from paddler.desired.document import WHOLE
from paddler.desired.schema import AgentDesiredState, BalancerDesiredState

MERGE_PATCH = "application/merge-patch+json"
IF_MATCH_PATTERN = r'^(\*|(W/)?"[0-9]{1,15}"(, ?(W/)?"[0-9]{1,15}"){0,9})$'
POOL_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$"

_POOL = Parameter(
    name="name", type=Annotated[str, Meta(pattern=POOL_PATTERN)], where="path", description="Name of a pool."
)
_VERSION = Parameter(
    name="version", type=Annotated[int, Meta(ge=1)], where="path", description="A version of its desired state."
)
_IF_MATCH = Parameter(
    name="If-Match",
    type=Annotated[str, Meta(pattern=IF_MATCH_PATTERN)],
    description="The `ETag` of what is to be changed: 412 if that is another one by now.",
)
_ETAG = Parameter(name="etag", description="The version, in quotes.", is_required=True)
_PATCH: msgspec.json.Decoder[Any] = msgspec.json.Decoder(dict[str, Any])

_COMMON: dict[str, Any] = {
    "tag": "desired state",
    "error_body": ErrorAnswer,
    "error_headers": (
        Parameter(name="retry-after", type=int, description="Seconds."),
        Parameter(name="x-should-retry", description="Whether the same may succeed later."),
    ),
}
_READ = (errors.InvalidField, errors.QueueUnavailable)
_WRITE = (*_READ, errors.Conflict, errors.VersionConflict)
_BODY = (*_WRITE, errors.BodyTooLarge, UnsupportedMediaType)


def _told(type_: Any, description: str) -> dict[int, Answer]:
    return {200: Answer(description=description, content={JSON: type_}, headers=(_ETAG,))}


GET_STATE = Operation(
    summary="The desired state.",
    parameters=(_POOL,),
    answers=_told(BalancerDesiredState, "As it is; the defaults while nobody has set one."),
    errors=_READ,
    **_COMMON,
)
PUT_STATE = Operation(
    summary="Replace the desired state.",
    parameters=(_POOL, _IF_MATCH),
    request=WHOLE,
    answers={204: Answer(description="It is set.", content={}, headers=(_ETAG,))},
    errors=_BODY,
    **_COMMON,
)
PATCH_STATE = Operation(
    summary="Change a part of the desired state.",
    parameters=(_POOL, _IF_MATCH),
    request=_PATCH,
    request_media=MERGE_PATCH,
    answers=_told(BalancerDesiredState, "The whole of it, changed."),
    errors=_BODY,
    **_COMMON,
)
APPLICABLE = Operation(
    summary="What agents are to apply.",
    parameters=(_POOL,),
    answers=_told(AgentDesiredState | None, "Null while nobody has set a desired state."),
    errors=_READ,
    **_COMMON,
)
HISTORY = Operation(
    summary="The versions of the desired state.",
    parameters=(_POOL,),
    answers=_told(StateHistory, "The last hundred."),
    errors=_READ,
    **_COMMON,
)
VERSION = Operation(
    summary="A version of the desired state.",
    parameters=(_POOL, _VERSION),
    answers=_told(WholeVersion, "The whole of it."),
    errors=(*_READ, errors.StateNotFound),
    **_COMMON,
)
ROLLBACK = replace(
    VERSION,
    summary="Set an earlier version again.",
    parameters=(_POOL, _VERSION, _IF_MATCH),
    answers=_told(WholeVersion, "The new version, with the old state."),
    errors=(*_WRITE, errors.StateNotFound),
)
