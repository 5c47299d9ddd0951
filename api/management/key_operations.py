"""What the routes of API keys and usage say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.management.key_objects import (
    CreateKey,
    ForgottenKey,
    KeyList,
    KeyObject,
    NewKeyObject,
    RotateKey,
    UsageAnswer,
)
from api.openai.objects import ErrorAnswer
from api.operation import JSON, Answer, Operation, Parameter
from api.submitting import BODY_ERRORS
from paddler.errors import Conflict, InvalidField, KeyNotFound, QueueUnavailable, StorageFull
from paddler.tenants.records import Limits, Name

CREATE_DECODER = msgspec.json.Decoder(CreateKey)
ROTATE_DECODER = msgspec.json.Decoder(RotateKey)
LIMITS_DECODER = msgspec.json.Decoder(Limits)

_COMMON: dict[str, Any] = {
    "error_body": ErrorAnswer,
    "error_headers": (
        Parameter(name="retry-after", type=int, description="Seconds."),
        Parameter(name="x-should-retry", description="Whether the same may succeed later."),
    ),
}
_KEYS: dict[str, Any] = {"tag": "keys", **_COMMON}
_KEY_ID = Parameter(name="key_id", where="path", description="`id` of the key.")
_NO_KEY = (KeyNotFound, QueueUnavailable)
_DAY = Annotated[str, Meta(extra_json_schema={"format": "date"})]


def _answer(type_: Any, description: str, status: int = 200) -> dict[int, Answer]:
    return {status: Answer(description=description, content={JSON: type_})}


LIST_KEYS = Operation(
    summary="All API keys.", answers=_answer(KeyList, "The keys."), errors=(QueueUnavailable,), **_KEYS
)
CREATE_KEY = Operation(
    summary="Make an API key.",
    request=CREATE_DECODER,
    answers=_answer(NewKeyObject, "The key, with its secret.", 201),
    errors=(*BODY_ERRORS, StorageFull, QueueUnavailable),
    **_KEYS,
)
GET_KEY = Operation(
    summary="An API key.", parameters=(_KEY_ID,), answers=_answer(KeyObject, "The key."), errors=_NO_KEY, **_KEYS
)
LIMIT_KEY = Operation(
    summary="Give an API key other limits, in place of all that it has.",
    parameters=(_KEY_ID,),
    request=LIMITS_DECODER,
    answers=_answer(KeyObject, "The key."),
    errors=(*BODY_ERRORS, Conflict, *_NO_KEY),
    **_KEYS,
)
ROTATE_KEY = Operation(
    summary="Give an API key a new secret.",
    parameters=(_KEY_ID,),
    request=ROTATE_DECODER,
    answers=_answer(NewKeyObject, "The key, with its new secret."),
    errors=(*BODY_ERRORS, Conflict, *_NO_KEY),
    **_KEYS,
)
REVOKE_KEY = Operation(
    summary="Revoke an API key: it is refused from now on.",
    parameters=(_KEY_ID,),
    answers=_answer(KeyObject, "The key."),
    errors=(Conflict, *_NO_KEY),
    **_KEYS,
)
FORGET_KEY = Operation(
    summary="Remove an API key that is revoked or has expired from the list.",
    parameters=(_KEY_ID,),
    answers=_answer(ForgottenKey, "It is gone."),
    errors=(Conflict, *_NO_KEY),
    **_KEYS,
)
USAGE = Operation(
    summary="What tenants have used, by day.",
    tag="usage",
    parameters=(
        Parameter(name="from", type=_DAY, where="query", description="The first day (UTC), by default 30 days ago."),
        Parameter(name="to", type=_DAY, where="query", description="The last day (UTC), by default today."),
        Parameter(name="tenant", type=Name, where="query", description="Only this tenant."),
        Parameter(
            name="group_by",
            type=Annotated[str, Meta(pattern="^(day|tenant|key|model)(,(day|tenant|key|model)){0,3}$")],
            where="query",
            description="Some of day, tenant, key and model, with commas between them; by default tenant,key,model.",
        ),
    ),
    answers=_answer(UsageAnswer, "A row for each group."),
    errors=(InvalidField, QueueUnavailable),
    **_COMMON,
)
