"""Items of a response's input, one structure for each type that there is.

What is accepted without effect: the `id` and `status` of an item, `detail` of an image (the agent's
`--image-resize-to-fit` decides how large it is), `annotations` and `logprobs` of a text, `phase` of a message.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.openai.tool_schema import MAX_ID

Status = Literal["in_progress", "completed", "incomplete"]
ItemId = Annotated[str, Meta(max_length=MAX_ID)]
CallId = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]


class Part(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Of a message, or of the output of a call."""

    type: str
    text: str | None = None
    image_url: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    annotations: list[object] | None = None
    logprobs: list[object] | None = None
    refusal: str | None = None
    parsed: object = None
    file_id: None = None
    prompt_cache_breakpoint: None = None
    filename: object = None
    file_data: object = None
    file_url: object = None
    input_audio: object = None


class MessageItem(Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[Part], Meta(max_length=4096)]
    type: Literal["message"] | None = None
    id: ItemId | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class CallItem(Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="function_call"):
    call_id: CallId
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    arguments: str
    id: ItemId | None = None
    status: Status | None = None
    namespace: None = None
    caller: None = None


class CallOutputItem(
    Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="function_call_output"
):
    call_id: CallId
    output: str | Annotated[list[Part], Meta(min_length=1, max_length=4096)]
    id: ItemId | None = None
    status: Status | None = None
    namespace: None = None
    caller: None = None


class ReasoningText(Struct, forbid_unknown_fields=True):
    type: Literal["summary_text", "reasoning_text"]
    text: str


class ReasoningItem(Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="reasoning"):
    """What the model has thought is its `content`; without one its `summary`."""

    summary: list[ReasoningText]
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    id: ItemId | None = None
    status: Status | None = None


class ReferenceItem(Struct, forbid_unknown_fields=True, tag_field="type", tag="item_reference"):
    """An item of a stored response, by its id."""

    id: ItemId


Item = MessageItem | CallItem | CallOutputItem | ReasoningItem
