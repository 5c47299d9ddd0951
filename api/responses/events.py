"""The events of a response's stream, as types: what `ResponseStream` puts together from parts that are encoded once."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from api.openai.objects import SampledToken
from api.responses.objects import (
    CallObject,
    MessageObject,
    ReasoningObject,
    ResponseObject,
    TextObject,
    ThoughtObject,
)

_RESPONSE: dict[str, Any] = {"response": ResponseObject}
_ITEM: dict[str, Any] = {"output_index": int, "item": MessageObject | ReasoningObject | CallObject}
_OF_ITEM: dict[str, Any] = {"item_id": str, "output_index": int}
_OF_PART: dict[str, Any] = {**_OF_ITEM, "content_index": int}
_PART: dict[str, Any] = {**_OF_PART, "part": TextObject | ThoughtObject}
_LOGPROBS: dict[str, Any] = {"logprobs": list[SampledToken]}

_FIELDS: dict[str, dict[str, Any]] = {
    "response.created": _RESPONSE,
    "response.queued": _RESPONSE,
    "response.in_progress": _RESPONSE,
    "response.completed": _RESPONSE,
    "response.incomplete": _RESPONSE,
    "response.failed": _RESPONSE,
    "response.output_item.added": _ITEM,
    "response.output_item.done": _ITEM,
    "response.content_part.added": _PART,
    "response.content_part.done": _PART,
    "response.output_text.delta": {**_OF_PART, "delta": str, **_LOGPROBS},
    "response.output_text.done": {**_OF_PART, "text": str, **_LOGPROBS},
    "response.reasoning_text.delta": {**_OF_PART, "delta": str},
    "response.reasoning_text.done": {**_OF_PART, "text": str},
    "response.function_call_arguments.delta": {**_OF_ITEM, "delta": str},
    "response.function_call_arguments.done": {**_OF_ITEM, "name": str, "arguments": str},
    "error": {"code": str, "message": str, "param": str | None},
}


def _event(kind: str, fields: dict[str, Any]) -> type[Struct]:
    name = "".join(word.capitalize() for word in kind.replace("_", ".").split(".")).removeprefix("Response")
    all_fields = [("sequence_number", int), *fields.items()]
    return msgspec.defstruct(f"Response{name}Event", all_fields, tag_field="type", tag=kind, module=__name__)


EVENTS = tuple(_event(kind, fields) for kind, fields in _FIELDS.items())
