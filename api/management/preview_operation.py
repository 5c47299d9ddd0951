"""What the preview of a chat template takes, answers and says of itself in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.body import UnsupportedMediaType
from api.openai.objects import ErrorAnswer
from api.openai.schema import ChatMessage
from api.openai.tool_schema import ToolChoicePart, Tools
from api.operation import JSON, TEXT, Answer, Operation, Parameter
from paddler.desired.schema import MAX_TEMPLATE
from paddler.errors import BodyTooLarge, Conflict, InvalidField, PoolNotFound, QueueUnavailable
from paddler.wire.trials import Source

MAX_MESSAGES = 1000


class PreviewRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """A chat request as far as a template sees it; `null` means absent. Without `chat_template` the one that is in use
    is shown."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    chat_template: Annotated[str, Meta(max_length=MAX_TEMPLATE)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoicePart | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, object] | None = None


class PreviewObject(Struct, frozen=True, kw_only=True):
    """`prompt` is null where there is none: `error` says why, and `line` is that of the template, counted from 1, where
    it is known. `is_cut`: the prompt has more than these 100,000 characters. `source` is whose template it is: the one
    that was given, the desired state's, or the model's own. `agent` is who rendered it, with the `model` it serves."""

    prompt: str | None
    error: str | None
    line: int | None
    is_cut: bool
    source: Source
    agent: str
    agent_name: str | None
    model: str | None


DECODER = msgspec.json.Decoder(PreviewRequest)

PREVIEW = Operation(
    summary="The prompt that a chat template makes of a conversation.",
    tag="desired state",
    request=DECODER,
    parameters=(Parameter(name="name", where="path", description="A pool; `/api/v1/...` without one is `default`."),),
    answers={
        200: Answer(description="The prompt, or what is wrong with the template.", content={JSON: PreviewObject}),
        504: Answer(description="No agent has answered within 3 s.", content={TEXT: str}),
    },
    errors=(InvalidField, PoolNotFound, Conflict, BodyTooLarge, UnsupportedMediaType, QueueUnavailable),
    error_body=ErrorAnswer,
    error_headers=(
        Parameter(name="retry-after", type=int, description="Seconds."),
        Parameter(name="x-should-retry", description="Whether the same may succeed later."),
    ),
)
