"""A response, its items and its usage, as clients read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from api.openai.label import ResponseLabel
from api.openai.objects import SampledToken
from api.responses.call import ResponseCall
from api.responses.output import Output, OutputItem
from api.responses.schema import FunctionTool, ReasoningPart, TextFormatPart
from paddler.errors import ImageDecodingFailed, PaddlerError
from paddler.wire.balancer import FinishReason, Usage

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

RESPONSE = "resp_"
_encode = msgspec.json.Encoder().encode


class TextObject(Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: tuple[()] = ()
    logprobs: list[SampledToken] = []


class ThoughtObject(Struct, tag_field="type", tag="reasoning_text"):
    text: str


class MessageObject(Struct, tag_field="type", tag="message"):
    id: str
    status: str
    content: list[TextObject]
    role: Literal["assistant"] = "assistant"


class ReasoningObject(Struct, tag_field="type", tag="reasoning"):
    id: str
    status: str
    content: list[ThoughtObject]
    summary: tuple[()] = ()
    encrypted_content: None = None


class CallObject(Struct, tag_field="type", tag="function_call"):
    id: str
    status: str
    call_id: str
    name: str
    arguments: str


class InputDetails(Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct):
    reasoning_tokens: int


class UsageObject(Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ErrorObject(Struct):
    code: str
    message: str


class IncompleteDetails(Struct):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Told(Struct):
    """What of a response changes."""

    status: Status
    output: list[MessageObject | ReasoningObject | CallObject] = []
    usage: UsageObject | None = None
    error: ErrorObject | None = None
    incomplete_details: IncompleteDetails | None = None


class Origin(Struct):
    id: str
    object: Literal["response"]
    created_at: int


class ReasoningEcho(Struct):
    effort: str | None
    summary: str | None


class TextEcho(Struct):
    format: TextFormatPart


class Echo(Struct):
    """What of a response says how it was asked for."""

    model: str
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningEcho
    service_tier: str
    store: bool
    temperature: float
    text: TextEcho
    tool_choice: object
    tools: list[FunctionTool]
    top_logprobs: int
    top_p: float
    user: str | None
    truncation: Literal["disabled"] = "disabled"
    max_tool_calls: None = None


def _all_of(*parts: type[Struct]) -> list[tuple[str, Any]]:
    """Every field of them: nothing is left out where they are encoded."""
    return [(one.name, one.type) for part in parts for one in msgspec.structs.fields(part)]


ResponseObject = msgspec.defstruct("ResponseObject", _all_of(Origin, Echo, Told), module=__name__)
"""What `Rendered.response` puts together, as a type."""


def echo_of(call: ResponseCall) -> bytes:
    """JSON for `ResponseLabel.echo`."""
    request, payload = call.request, call.payload
    reasoning = request.reasoning or ReasoningPart()
    echo = Echo(
        model=request.model,
        background=call.is_background,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        parallel_tool_calls=payload.parallel_tool_calls,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        reasoning=ReasoningEcho(reasoning.effort, reasoning.summary),
        service_tier=request.service_tier or "default",
        store=call.is_stored,
        temperature=payload.sampling.temperature,
        text=TextEcho((request.text and request.text.format) or TextFormatPart("text")),
        tool_choice=request.tool_choice or "auto",
        tools=list(call.tools),
        top_logprobs=payload.logprobs or 0,
        top_p=payload.sampling.top_p,
        user=request.user,
    )
    # What a client has written over several lines would break a line of an event.
    return msgspec.json.format(_encode(echo), indent=-1)


class Rendered:
    """The constant part of one response's JSON, encoded once."""

    def __init__(self, request_id: str, label: ResponseLabel) -> None:
        origin = Origin(f"{RESPONSE}{request_id}", "response", label.created)
        echo = label.echo or _encode({"model": label.model})
        self._head = _encode(origin)[:-1] + b"," + echo[1:-1] + b","

    def response(self, told: Told) -> bytes:
        """JSON."""
        return self._head + _encode(told)[1:]


def item_object(item: OutputItem, *, is_begun: bool = False) -> MessageObject | ReasoningObject | CallObject:
    """As it is; `is_begun`: as it was when it began."""
    status = "in_progress" if is_begun else item.status
    match item.kind:
        case "message":
            content = [] if is_begun else [TextObject(item.text, (), item.logprobs)]
            return MessageObject(item.id, status, content)
        case "reasoning":
            return ReasoningObject(item.id, status, [] if is_begun else [ThoughtObject(item.text)])
        case "function_call":
            return CallObject(item.id, status, item.call_id, item.name, "" if is_begun else item.text)


def item_objects(items: Sequence[OutputItem]) -> list[MessageObject | ReasoningObject | CallObject]:
    return [item_object(item) for item in items]


def usage_object(usage: Usage, reasoning_tokens: int) -> UsageObject:
    return UsageObject(
        usage.prompt_tokens,
        InputDetails(usage.cached_tokens),
        usage.completion_tokens,
        OutputDetails(min(reasoning_tokens, usage.completion_tokens)),
        usage.prompt_tokens + usage.completion_tokens,
    )


def told_finished(output: Output, reason: FinishReason, usage: Usage) -> Told:
    """Of an output that has ended as asked."""
    is_whole = reason is FinishReason.STOP
    return Told(
        "completed" if is_whole else "incomplete",
        item_objects(output.items),
        usage_object(usage, output.reasoning_tokens),
        incomplete_details=None if is_whole else IncompleteDetails(),
    )


def failure_object(error: PaddlerError) -> ErrorObject:
    """With a code of OpenAI's few: clients know no others. The message is ours."""
    if isinstance(error, ImageDecodingFailed):
        code = "invalid_image"
    elif error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "server_error" if error.status >= 500 else "invalid_prompt"
    return ErrorObject(code, error.message)
