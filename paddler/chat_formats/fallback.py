"""Tools for a model whose template has none: what it is told of them, and its conversation without their roles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from paddler.chat_formats.families import CALLS, FALLBACK
from paddler.wire.agent import Message, Tool

_OPENING, _CLOSING = CALLS[FALLBACK].markers


def tool_object(tool: Tool) -> dict[str, Any]:
    """As OpenAI's clients send a tool, and as templates take it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = json.loads(tool.parameters)
    return {"type": "function", "function": function}


def tools_text(tools: Sequence[Tool], *, is_required: bool, is_parallel: bool) -> str:
    """What a model is told."""
    lines = [
        "You have tools. Each line here describes one, with the JSON schema of its arguments:",
        *(json.dumps(tool_object(tool)["function"], ensure_ascii=False) for tool in tools),
        "",
        "To call a tool, write its name and its arguments as JSON in this form, and nothing behind it:",
        f'{_OPENING}\n{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}\n{_CLOSING}',
    ]
    if is_parallel:
        lines.append("Several calls may follow each other.")
    lines.append("You must call a tool now." if is_required else "Answer without a call when you need none.")
    return "\n".join(lines)


def rewritten(messages: Sequence[Message], told: str, *, has_system: bool) -> tuple[Message, ...]:
    """The conversation with `told` as a part of its system message, or of the first turn of a user where the template
    has no system messages; calls as their model wrote them, results as the user's, in one turn with what the user says
    then: many templates insist on turns that alternate."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    turns: list[Message] = []
    is_result = False
    for message in messages:
        was_result, is_result = is_result, message.role == "tool"
        if is_result:
            name = message.name or names.get(message.tool_call_id or "", "the tool")
            text = f"Result of {name}:\n{message.content}"
            if turns and turns[-1].role == "user":
                turns[-1] = structs.replace(turns[-1], content=f"{turns[-1].content}\n\n{text}")
            else:
                turns.append(Message("user", text))
        elif message.tool_calls:
            calls = [
                f'{_OPENING}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}\n{_CLOSING}'
                for call in message.tool_calls
            ]
            parts = [message.content, *calls] if message.content else calls
            turns.append(structs.replace(message, content="\n".join(parts), tool_calls=()))
        elif was_result and message.role == "user":
            turns[-1] = structs.replace(message, content=f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(message)
    return tuple(_telling(turns, told, "system" if has_system else "user")) if told else tuple(turns)


def _telling(turns: list[Message], told: str, role: str) -> list[Message]:
    """A system message comes first, whoever has sent one."""
    place = next((index for index, turn in enumerate(turns) if turn.role == role), None)
    if place is None or (role == "system" and place):
        return [Message(role, told), *turns]
    first = turns[place]
    content = f"{first.content}\n\n{told}" if role == "system" else f"{told}\n\n{first.content}"
    turns[place] = structs.replace(first, content=content)
    return turns
