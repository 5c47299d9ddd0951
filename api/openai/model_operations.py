"""What `/v1/models` says of itself in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.anthropic.errors import ErrorBody
from api.anthropic.models import MAX_LIMIT, ModelOut, ModelPage
from api.openai.objects import ErrorAnswer, ModelList, ModelObject
from api.operation import JSON, Answer, Operation, Parameter, any_of
from api.submitting import ERROR_HEADERS
from paddler.errors import InvalidField, ModelNotFound, QueueUnavailable

_VERSION = Parameter(name="anthropic-version", description="Any value: answers are those of Anthropic's API.")
_ID = Parameter(name="request-id", description="With `anthropic-version`: one made for this answer.")
_SHARED: dict[str, Any] = {
    "tag": "openai",
    "error_body": Annotated[object, any_of(ErrorAnswer, ErrorBody)],
    "error_headers": (_ID, *ERROR_HEADERS),
}


def _with_anthropic(ours: type, theirs: type) -> dict[str, Any]:
    return {JSON: Annotated[object, any_of(ours, theirs)]}


LIST_MODELS = Operation(
    summary="Names that `model` in a request may have.",
    parameters=(
        _VERSION,
        Parameter(
            name="limit",
            where="query",
            type=Annotated[int, Meta(ge=1, le=MAX_LIMIT)],
            description="At most so many; 20 by default with `anthropic-version`, else all.",
        ),
        Parameter(name="after_id", where="query", description="Those behind this one."),
        Parameter(name="before_id", where="query", description="Those before this one."),
    ),
    answers={
        200: Answer(
            description="Pools, and the models that their agents serve.",
            content=_with_anthropic(ModelList, ModelPage),
            headers=(_ID,),
        )
    },
    errors=(InvalidField, QueueUnavailable),
    parts=(ModelList, ModelPage, ErrorAnswer, ErrorBody),
    **_SHARED,
)
GET_MODEL = Operation(
    summary="One of the models.",
    parameters=(Parameter(name="model_path", where="path", description="Its id, slashes included."), _VERSION),
    answers={200: Answer(description="The model.", content=_with_anthropic(ModelObject, ModelOut), headers=(_ID,))},
    errors=(ModelNotFound, QueueUnavailable),
    parts=(ModelObject, ModelOut, ErrorAnswer, ErrorBody),
    **_SHARED,
)
