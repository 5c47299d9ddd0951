"""Bodies of `POST /v1/responses`, with a few extensions that users of llama.cpp send.

`null` means absent. A field typed `None` belongs to the protocol and is not supported yet: `NOT_YET` has the words for
its error. Items of the input and tools are bytes at first, as which fields they have depends on their type.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from api.openai.schema import MAX_STOP, Penalty, StopString, TokenCount, Unit
from api.tools import MAX_TOOLS
from paddler.payload import MAX_LOGPROBS

MAX_ITEMS = 4096
"""Of one input."""
MAX_METADATA = 16

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=MAX_METADATA)
]
Include = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class TextFormatPart(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`name`, `description` and `strict` change nothing: a schema is always enforced in full."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Meta(max_length=256)] | None = None
    schema: object = None
    description: str | None = None
    strict: bool | None = None


class TextPart(Struct, forbid_unknown_fields=True):
    format: TextFormatPart | None = None
    verbosity: None = None


class ReasoningPart(Struct, forbid_unknown_fields=True):
    """`effort` says whether a model thinks that can do both, not how much. `summary` `auto` is what there is: what the
    model thinks comes as it is."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto"] | None = None
    generate_summary: None = None
    context: None = None
    mode: None = None


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class FunctionTool(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`strict` changes nothing: a schema is always enforced in full."""

    type: Literal["function"]
    name: str
    parameters: Raw = field(default_factory=lambda: Raw(b"null"))
    description: str | None = None
    strict: bool | None = None


class ChosenTool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str


class FunctionChoice(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    name: str


class AllowedTools(Struct, forbid_unknown_fields=True, tag_field="type", tag="allowed_tools"):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenTool], Meta(min_length=1)]


ToolChoice = Literal["none", "auto", "required"] | FunctionChoice | AllowedTools


class ResponsesRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/responses`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[Raw], Meta(max_length=MAX_ITEMS)] | None = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Meta(max_length=256)] | None = None

    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[Include] | None = None

    max_output_tokens: TokenCount | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    text: TextPart | None = None
    reasoning: ReasoningPart | None = None
    tools: Annotated[list[Raw], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=1024)] | None = None

    # As chat completions have them, and OpenAI's responses have not.
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=MAX_STOP)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Unit | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    chat_template_kwargs: dict[str, object] | None = None

    # Told again with the response, without effect on it.
    metadata: Metadata | None = None
    user: str | None = None
    service_tier: str | None = None

    access_programs: None = None
    background_options: None = None
    context_management: None = None
    conversation: None = None
    image: None = None
    max_tool_calls: None = None
    moderation: None = None
    prompt: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: None = None
    safety_identifier: None = None


_PLAIN = (
    *("access_programs", "background_options", "context_management", "conversation", "image", "max_tool_calls"),
    *("moderation", "prompt", "prompt_cache_options", "prompt_cache_retention", "safety_identifier"),
    *("reasoning.generate_summary", "reasoning.context", "reasoning.mode", "text.verbosity"),
    *("tools[].defer_loading", "tools[].allowed_callers", "tools[].output_schema", "tools[].async"),
    *("input[].namespace", "input[].caller", "input[].async", "input[].content[].prompt_cache_breakpoint"),
    *("input[].output[].prompt_cache_breakpoint", "input[].content[].file_id", "input[].output[].file_id"),
)

NOT_YET: dict[str, str] = {
    **{name: f"`{name.rpartition('[].')[2]}`" for name in _PLAIN},
    "tool_choice.type": "A choice of another type than `function` and `allowed_tools`",
    "tool_choice.tools[].type": "A tool of another type than `function`",
    "truncation": "`truncation` other than `disabled`",
    "reasoning.summary": "A `summary` of the reasoning other than `auto`",
}
