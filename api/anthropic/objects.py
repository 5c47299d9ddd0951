"""What Anthropic's protocol sends: a message, the blocks of its content, and what it has cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Raw, Struct, field

from api.anthropic.label import MessageLabel
from api.anthropic.partial import whole_part
from paddler.chat_formats.ids import call_id
from paddler.chat_formats.reading import Arguments, CallBegun, Content, Delta, OutputReader, Reasoning
from paddler.jobs.gateway import Reply
from paddler.wire.answers import Counted
from paddler.wire.balancer import Finished, FinishReason, TextFormat, Tokens, Usage

SIGNATURE = "paddler"
"""Of every thought: clients that find none do not send the thought back, and the template may have a use for it."""

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


class TextOut(Struct, frozen=True, tag="text"):
    text: str = ""


class ThinkingOut(Struct, frozen=True, tag="thinking"):
    thinking: str = ""
    signature: str = ""


class ToolUseOut(Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: Raw = field(default_factory=lambda: Raw(b"{}"))


BlockOut = TextOut | ThinkingOut | ToolUseOut


class UsageOut(Struct, frozen=True):
    """All input tokens are those three together."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageOut(Struct, frozen=True, kw_only=True, tag="message"):
    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[BlockOut]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: UsageOut


class CountOut(Struct, frozen=True):
    input_tokens: int


def message_id(request_id: str) -> str:
    return f"msg_{request_id}"


def tool_use_id(request_id: str, index: int) -> str:
    """Of call number `index` of a request; whoever renders it gives the same."""
    return "toolu_" + call_id(request_id, index).removeprefix("call_")


def usage_out(usage: Usage) -> UsageOut:
    return UsageOut(usage.prompt_tokens - usage.cached_tokens, 0, usage.cached_tokens, usage.completion_tokens)


def stop_reason_of(
    reason: FinishReason, stop: str | None, num_output: int, label: MessageLabel, *, has_calls: bool
) -> tuple[StopReason, str | None]:
    """Why it has ended, and at which stop string. `has_calls`: calls, and the last of them is whole: then it is to be
    made, whatever came behind it."""
    if reason is FinishReason.LENGTH:
        return ("max_tokens" if num_output >= label.max_tokens else "model_context_window_exceeded"), None
    if has_calls:
        return "tool_use", None
    return ("end_turn", None) if stop is None else ("stop_sequence", stop)


def message_out(
    request_id: str, said: Iterable[Tokens], end: Finished, label: MessageLabel, format: TextFormat | None
) -> MessageOut:
    """The whole answer; `format` is that of its text."""
    text = "".join(frame.text for frame in said)
    deltas: list[Delta] = [Content(text)] if format is None and text else []
    has_calls = False
    if format is not None:
        reader = OutputReader(format)
        deltas = [*reader.push(text), *reader.finish()]
        has_calls = reader.has_whole_calls
    num_output = end.usage.completion_tokens
    stop_reason, stop = stop_reason_of(end.reason, end.stop, num_output, label, has_calls=has_calls)
    return MessageOut(
        id=message_id(request_id),
        model=label.model,
        content=_content(deltas, request_id, hides_thinking=label.hides_thinking),
        stop_reason=stop_reason,
        stop_sequence=stop,
        usage=usage_out(end.usage),
    )


def message_body(reply: Reply, said: Iterable[Tokens], end: Finished, label: MessageLabel) -> bytes:
    return msgspec.json.encode(message_out(reply.request_id, said, end, label, reply.route.format))


def count_body(counted: Counted) -> Iterable[bytes]:
    return (msgspec.json.encode(CountOut(counted.num_tokens)),)


def _content(deltas: Iterable[Delta], request_id: str, *, hides_thinking: bool) -> list[BlockOut]:
    """What follows each other of one kind is one block, as in a stream."""
    blocks: list[tuple[Delta, list[str]]] = []
    for delta in deltas:
        if isinstance(delta, CallBegun):
            blocks.append((delta, []))
            continue
        if not isinstance(delta, Arguments) and (not blocks or type(blocks[-1][0]) is not type(delta)):
            blocks.append((delta, []))
        blocks[-1][1].append(delta.text)
    return [_block(first, "".join(texts), request_id, hides_thinking) for first, texts in blocks]


def _block(first: Delta, text: str, request_id: str, hides_thinking: bool) -> BlockOut:
    match first:
        case Content():
            return TextOut(text)
        case Reasoning():
            return ThinkingOut("" if hides_thinking else text, SIGNATURE)
        case CallBegun(index, name):
            return ToolUseOut(tool_use_id(request_id, index), name, Raw(whole_part(text).encode()))
        case Arguments():
            raise AssertionError("arguments come behind their call")
