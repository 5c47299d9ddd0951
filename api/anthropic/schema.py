"""Bodies of `POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from api.anthropic.blocks import Anything, MessagePart, Nothing, TextBlock
from api.tools import MAX_DESCRIPTION, MAX_TOOLS
from paddler.payload import MAX_STOP_CHARS, MAX_STOPS

MAX_MESSAGES = 100_000
"""As many as Anthropic takes."""

StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]
Unit = Annotated[float, Meta(ge=0, le=1)]


class ToolKind(Struct):
    """What a tool is, looked at before its other fields: each type has its own."""

    type: str | None = None


class ToolPart(Struct, forbid_unknown_fields=True):
    """`strict` changes nothing: a schema is always enforced in full. `input_schema` are bytes until it is known how
    many there are of all tools."""

    name: str
    input_schema: Raw
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] | None = None
    type: Literal["custom"] | None = None
    cache_control: Anything | None = None
    strict: bool | None = None
    eager_input_streaming: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    input_examples: Nothing | None = None


class ToolChoicePart(Struct, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, forbid_unknown_fields=True):
    """`budget_tokens` changes nothing: `max_tokens` bounds thoughts and answer together."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class JsonFormat(Struct, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: dict[str, object]


class OutputConfig(Struct, forbid_unknown_fields=True):
    format: JsonFormat | None = None
    effort: None = None
    task_budget: None = None


class CountRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What makes a prompt. `output_format` is an older name of `output_config.format`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[MessagePart], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[Raw], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoicePart | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None

    # Accepted without effect.
    cache_control: Anything | None = None

    # Supported in the one form that asks for nothing.
    speed: Literal["standard"] | None = None
    mcp_servers: Nothing | None = None

    billing_policy: None = None
    compaction: None = None
    container: None = None
    context_management: None = None
    thread: None = None


class MessageRequest(CountRequest, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    stop_sequences: Annotated[list[StopString], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None

    # Accepted without effect.
    metadata: Anything | None = None
    service_tier: Literal["auto", "standard_only"] | None = None

    diagnostics: None = None
    fallback_credit_token: None = None
    fallbacks: None = None
    inference_geo: None = None


_PLAIN = (
    *("billing_policy", "compaction", "container", "context_management", "diagnostics", "fallback_credit_token"),
    *("fallbacks", "inference_geo", "mcp_servers", "output_config.effort", "output_config.task_budget", "thread"),
    *("tools[].allowed_callers[]", "tools[].input_examples"),
)
_BLOCKS = ("messages[].content[]", "messages[].content[].content[]", "system[]")

NOT_YET: dict[str, str] = {
    **{name: f"`{name.removeprefix('tools[].').removesuffix('[]')}`" for name in _PLAIN},
    **{f"{block}.citations": "`citations`" for block in _BLOCKS},
    **{f"{block}.transformations": "`transformations`" for block in _BLOCKS},
    "messages[].content[].caller.type": "A call that the model has not made itself",
    "messages[].content[].toolset_name": "`toolset_name`",
    "messages[].content[].type": "Content other than `text`, `image`, `tool_use`, `tool_result` and `thinking`",
    "messages[].content[].content[].type": "A result other than of `text` and `image`",
    "speed": "A `speed` other than `standard`",
    "thinking.type": "A type of `thinking` other than `enabled`, `disabled` and `adaptive`",
}
