"""Messages and tools as chat templates take them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from paddler.chat_formats.ids import short_id
from paddler.wire.agent import Message, ToolCall


def as_mapping(
    message: Message,
    names: dict[str, str],
    *,
    takes_objects: bool = True,
    has_short_ids: bool = False,
    in_parts: bool = False,
) -> dict[str, Any]:
    """`names` are those of the calls by id: some templates want them with a result. `takes_objects`: arguments are
    given parsed and not as text. `in_parts`: content is a list of one part."""
    content = [{"type": "text", "text": message.content}] if in_parts else message.content
    mapping: dict[str, Any] = {"role": message.role, "content": content}
    name = message.name
    if message.tool_call_id is not None:
        mapping["tool_call_id"] = short_id(message.tool_call_id) if has_short_ids else message.tool_call_id
        name = name or names.get(message.tool_call_id)
    if name is not None:
        mapping["name"] = name
    if message.reasoning_content is not None:
        mapping["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        mapping["tool_calls"] = [_call(call, takes_objects, has_short_ids) for call in message.tool_calls]
    return mapping


def _call(call: ToolCall, takes_objects: bool, has_short_ids: bool) -> dict[str, Any]:
    arguments: Any = call.arguments or "{}"
    if takes_objects:
        with contextlib.suppress(ValueError):  # of a call that was cut off the model sees what it wrote
            arguments = json.loads(arguments)
    function = {"name": call.name, "arguments": arguments}
    return {
        "id": short_id(call.id) if has_short_ids else call.id,
        "type": "function",
        "function": function,
    }
