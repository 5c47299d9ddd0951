"""Bodies of OpenAI requests, with the extensions that users of llama.cpp send.

`null` means absent. A field typed `None`, or held to the one value that changes nothing, belongs to the
protocol and is not supported yet: `NOT_YET` has the words for its error.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from api.openai.tool_schema import MAX_ID, CallPart, ToolChoicePart, Tools
from paddler.payload import MAX_BIAS, MAX_BIAS_CHARS, MAX_BIASES, MAX_BREAKER_CHARS, MAX_BREAKERS, MAX_LOGPROBS

# Only said here: other words are refused where the remedy is known.
Role = Annotated[str, Meta(extra_json_schema={"enum": ["system", "developer", "user", "assistant", "tool"]})]
PartType = Annotated[str, Meta(extra_json_schema={"enum": ["text", "image_url"]})]
Unit = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenCount = Annotated[int, Meta(ge=1, le=2**31 - 1)]
StopString = Annotated[str, Meta(min_length=1, max_length=4096)]
Nothing = Annotated[list[object], Meta(max_length=0)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
BiasValue = Annotated[float, Meta(ge=-MAX_BIAS, le=MAX_BIAS)] | bool
BiasText = Annotated[str, Meta(min_length=1, max_length=MAX_BIAS_CHARS)]
BiasMap = Annotated[dict[str, BiasValue], Meta(max_length=MAX_BIASES)]
BiasList = Annotated[list[tuple[Count | BiasText, BiasValue]], Meta(max_length=MAX_BIASES)]
Breaker = Annotated[str, Meta(min_length=1, max_length=MAX_BREAKER_CHARS)]
Breakers = Annotated[list[Breaker], Meta(max_length=MAX_BREAKERS)]

MAX_MESSAGES = 100_000
MAX_CHOICES = 8
MAX_STOP = 16
"""OpenAI allows 4; users of llama.cpp send more."""


class ImageUrl(Struct, forbid_unknown_fields=True):
    """`detail` changes nothing: the agent's `--image-resize-to-fit` decides how large an image is."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ContentPart(Struct, forbid_unknown_fields=True):
    type: PartType
    text: str | None = None
    image_url: ImageUrl | None = None
    input_audio: object = None
    file: object = None
    refusal: object = None
    prompt_cache_breakpoint: None = None


class ChatMessage(Struct, forbid_unknown_fields=True):
    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: None = None
    annotations: Nothing | None = None
    audio: None = None
    tool_calls: list[CallPart] | None = None
    tool_call_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)] | None = None
    reasoning_content: str | None = None
    function_call: None = None


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class NamedSchema(Struct, forbid_unknown_fields=True):
    """`name`, `description` and `strict` change nothing: a schema is always enforced in full."""

    name: Annotated[str, Meta(max_length=256)]
    schema: object = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True):
    """`schema` beside `json_object` is llama.cpp's."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    schema: object = None


class GenerationRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every request for text has: how the client receives it, what it has to look like, and how it is sampled."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=MAX_STOP)] | None = None

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None

    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None

    # How the request is treated.
    prompt_cache_key: Annotated[str, Meta(max_length=1024)] | None = None
    background: bool | None = None

    # What the answer has to look like; at most one of them.
    response_format: ResponseFormat | None = None
    json_schema: object = None
    grammar: Annotated[str, Meta(min_length=1)] | None = None

    # As llama.cpp's server names them.
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Unit | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    n_predict: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    logit_bias: BiasMap | BiasList | None = None
    ignore_eos: bool | None = None
    min_keep: Count | None = None
    typical_p: Unit | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1000, le=1000)] | None = None
    xtc_probability: Unit | None = None
    xtc_threshold: Unit | None = None
    dynatemp_range: Annotated[float, Meta(ge=0, le=1000)] | None = None
    dynatemp_exponent: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=1000)] | None = None
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    dry_sequence_breakers: Breakers | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None = None
    mirostat_eta: Unit | None = None

    # Accepted without effect.
    user: str | None = None


class ChatRequest(GenerationRequest, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]

    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None

    # Accepted without effect.
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    store: bool | None = None

    tools: Tools | None = None
    tool_choice: ToolChoicePart | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, object] | None = None

    # Supported in the one form that asks for nothing.
    functions: list[object] | None = None
    function_call: object = None
    modalities: list[Literal["text"]] | None = None

    audio: None = None
    moderation: None = None
    prediction: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: None = None
    reasoning_effort: None = None
    safety_identifier: None = None
    verbosity: None = None
    web_search_options: None = None


_LLAMA_CPP = (
    *("cache_prompt", "id_slot", "lora", "n_keep"),
    *("n_probs", "parse_tool_calls", "post_sampling_probs", "reasoning_format", "return_progress"),
    *("return_tokens", "samplers", "t_max_predict_ms", "timings_per_token"),
)

_PLAIN = (
    *("audio", "moderation", "prediction", "prompt_cache_options", "prompt_cache_retention"),
    *("reasoning_effort", "safety_identifier", "verbosity", "web_search_options"),
    *("messages[].refusal", "messages[].annotations", "messages[].audio", "messages[].function_call"),
    *("messages[].content[].prompt_cache_breakpoint", "messages[].content[].cache_control"),
)

NOT_YET: dict[str, str] = {
    **{name: f"`{name.rpartition('[].')[2]}`" for name in (*_PLAIN, *_LLAMA_CPP)},
    "modalities[]": "A modality other than `text`",
}
