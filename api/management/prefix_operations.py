"""What the routes of pinned prefixes say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Any

import msgspec

from api.management.prefix_objects import PinRequest, PrefixList, PrefixObject, RemovedPrefix, WholePrefix
from api.openai.objects import ErrorAnswer
from api.operation import JSON, Answer, Operation, Parameter
from api.submitting import BODY_ERRORS
from paddler.errors import Conflict, PoolNotFound, PrefixNotFound, QueueUnavailable
from paddler.tenants.records import Name

PIN_DECODER = msgspec.json.Decoder(PinRequest)

_COMMON: dict[str, Any] = {
    "tag": "prefixes",
    "error_body": ErrorAnswer,
    "error_headers": (
        Parameter(name="retry-after", type=int, description="Seconds."),
        Parameter(name="x-should-retry", description="Whether the same may succeed later."),
    ),
}
_POOL = Parameter(name="name", where="path", description="A pool; `/api/v1/...` without one is `default`.")
_PREFIX = Parameter(name="prefix", type=Name, where="path", description="`name` of a pinned prefix.")
_NO_PREFIX = (PoolNotFound, PrefixNotFound, QueueUnavailable)


def _answer(type_: Any, description: str, status: int = 200) -> dict[int, Answer]:
    return {status: Answer(description=description, content={JSON: type_})}


LIST_PREFIXES = Operation(
    summary="The pinned prefixes of a pool.",
    parameters=(_POOL,),
    answers=_answer(PrefixList, "All of them."),
    errors=(PoolNotFound, QueueUnavailable),
    **_COMMON,
)
PIN_PREFIX = Operation(
    summary="Pin a prefix: agents compute it once and keep it.",
    parameters=(_POOL,),
    request=PIN_DECODER,
    answers={
        **_answer(PrefixObject, "There was one of this name: it is this one now, or was already."),
        **_answer(PrefixObject, "It is pinned.", 201),
    },
    errors=(*BODY_ERRORS, Conflict, PoolNotFound, QueueUnavailable),
    **_COMMON,
)
GET_PREFIX = Operation(
    summary="A pinned prefix, with what it is.",
    parameters=(_POOL, _PREFIX),
    answers=_answer(WholePrefix, "The whole of it."),
    errors=_NO_PREFIX,
    **_COMMON,
)
REMOVE_PREFIX = Operation(
    summary="Unpin a prefix: agents need not keep it any more.",
    parameters=(_POOL, _PREFIX),
    answers=_answer(RemovedPrefix, "It is gone."),
    errors=_NO_PREFIX,
    **_COMMON,
)
