"""A conversation as OpenAI's protocol has it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from paddler.chat_formats.fallback import tool_object
from paddler.images import measure
from paddler.wire.agent import Generate, ImagePart, Message, TextPart


def message_objects(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_object(message) for message in messages]


def _object(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role}
    if message.parts:
        found["content"] = [_part(part) for part in message.parts]
    elif message.content or not message.tool_calls:
        found["content"] = message.content
    else:
        found["content"] = None
    if message.name is not None:
        found["name"] = message.name
    if message.reasoning_content is not None:
        found["reasoning_content"] = message.reasoning_content
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in message.tool_calls
        ]
    return found


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    data = base64.b64encode(part.data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{measure(part.data).kind.lower()};base64,{data}"}}


def tool_fields(payload: Generate) -> dict[str, Any]:
    """`tools` and how they may be called; nothing, if the model is not even told of them."""
    if not payload.callable_tools:
        return {}
    choice: Any = payload.tool_choice
    if payload.tool_name is not None:
        choice = {"type": "function", "function": {"name": payload.tool_name}}
    fields: dict[str, Any] = {"tools": [tool_object(tool) for tool in payload.callable_tools], "tool_choice": choice}
    if not payload.parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    return fields


def template_fields(payload: Generate) -> dict[str, Any]:
    """Variables for the chat template."""
    variables: dict[str, Any] = json.loads(payload.template_kwargs) if payload.template_kwargs else {}
    if payload.enable_thinking is not None:
        variables = {"enable_thinking": payload.enable_thinking} | variables
    return {"chat_template_kwargs": variables} if variables else {}
