"""Calls of tools and reasoning in an answer."""

from __future__ import annotations

from typing import assert_never

from api.openai.objects import CallObject, DeltaObject, FinishWord, FunctionDelta, MessageObject
from paddler.chat_formats.ids import call_id
from paddler.chat_formats.reading import Arguments, CallBegun, Content, Delta, Reasoning, Said
from paddler.wire.balancer import FinishReason


def delta_object(delta: Delta, request_id: str) -> DeltaObject:
    """What a chunk of a stream adds to the message. A call begins with its id and name; then come its arguments."""
    match delta:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case CallBegun(index, name):
            function: FunctionDelta = {"name": name, "arguments": ""}
            own = call_id(request_id, index)
            return {"tool_calls": [{"index": index, "id": own, "type": "function", "function": function}]}
        case Arguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case _:
            assert_never(delta)


def message_object(said: Said, request_id: str) -> MessageObject:
    """A whole message. What there is none of is left out, but for the content, which is null beside calls."""
    content = None if said.calls and not said.content else said.content
    message: MessageObject = {"role": "assistant", "content": content, "refusal": None}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        calls = enumerate(said.calls)
        message["tool_calls"] = [_call(request_id, index, name, arguments) for index, (name, arguments) in calls]
    return message


def finish_reason_of(reason: FinishReason, *, has_calls: bool) -> FinishWord:
    """`has_calls`: calls, and the last of them is whole; a stop string may end one in the middle."""
    if reason is FinishReason.LENGTH:
        return "length"
    return "tool_calls" if has_calls else "stop"


def _call(request_id: str, index: int, name: str, arguments: str) -> CallObject:
    return {
        "id": call_id(request_id, index),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
