"""What the native routes say of themselves in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

from api.body import UnsupportedMediaType
from api.native import calls, embeddings
from api.native.objects import EMBEDDING_ENVELOPES, ENVELOPES
from api.operation import JSON, TEXT, Answer, Operation, Parameter, Stream, any_of
from api.submitting import REQUEST_ID, SUBMIT_HEADERS
from paddler.errors import BodyTooLarge, InvalidField, QueueUnavailable

_SUBMITS: dict[str, Any] = {
    "tag": "native",
    "parameters": SUBMIT_HEADERS,
    "errors": (InvalidField, BodyTooLarge, UnsupportedMediaType, QueueUnavailable),
    "error_body": str,
    "error_media": TEXT,
    "error_headers": (Parameter(name="retry-after", type=int, description="Seconds."),),
}
_NOT_ENABLED = Answer(description="No agent can do this.", content={TEXT: str})


def _lines(envelopes: tuple[type, ...], description: str) -> dict[int, Answer]:
    """Whatever happens behind the checks is told in a line."""
    lines = Stream(Annotated[object, any_of(*envelopes)])
    return {200: Answer(description=description, content={JSON: lines}, headers=(REQUEST_ID,)), 501: _NOT_ENABLED}


CONTINUE_CONVERSATION = Operation(
    summary="Continue a conversation.",
    request=calls.CONVERSATION_DECODER,
    answers=_lines(ENVELOPES, "Lines of JSON, one envelope each, with empty lines while there is none."),
    parts=ENVELOPES,
    **_SUBMITS,
)
CONTINUE_RAW_PROMPT = Operation(
    summary="Continue a text.",
    request=calls.RAW_PROMPT_DECODER,
    answers=_lines(ENVELOPES, "Lines of JSON, one envelope each, with empty lines while there is none."),
    parts=ENVELOPES,
    **_SUBMITS,
)
EMBED_BATCH = Operation(
    summary="A vector for each of some documents.",
    request=embeddings.DECODER,
    answers=_lines(EMBEDDING_ENVELOPES, "Lines of JSON, one envelope each, in the order in which they are done."),
    parts=EMBEDDING_ENVELOPES,
    **_SUBMITS,
)
