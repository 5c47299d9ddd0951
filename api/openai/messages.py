"""The messages of a chat request, as the wire has them."""

from __future__ import annotations

from collections.abc import Sequence

from api.images import read_image_url
from api.openai.schema import ChatMessage, ContentPart
from api.openai.tools import read_calls
from api.validation import unsupported
from paddler.errors import InvalidField
from paddler.wire.agent import ImagePart, Message, TextPart

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def read_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Raises `InvalidField`, also for the result of a call that no earlier message has made. A call without a result is
    left to the model."""
    found: list[Message] = []
    ids: set[str] = set()
    for index, message in enumerate(messages):
        found.append(_message(f"messages[{index}]", message, ids))
        ids.update(call.id for call in found[-1].tool_calls)
    return tuple(found)


def _message(param: str, message: ChatMessage, ids: set[str]) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        if message.role == "function":
            raise InvalidField(
                f"`{param}.role`: `function` is deprecated and not supported: send `tool` with `tool_call_id` instead.",
                param=f"{param}.role",
            )
        raise InvalidField(f"`{param}.role` must be one of {', '.join(_ROLES)}.", param=f"{param}.role")
    _check_role(param, role, message)
    if role == "tool":
        _check_call(f"{param}.tool_call_id", message.tool_call_id, ids)
    calls = read_calls(f"{param}.tool_calls", message.tool_calls or ())
    parts = () if calls and not message.content else _parts(f"{param}.content", message.content)
    # Joined with a newline, as llama.cpp's server does for templates that take strings.
    content = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    has_image = any(isinstance(part, ImagePart) for part in parts)
    return Message(
        role,
        content,
        message.name,
        calls,
        message.tool_call_id,
        message.reasoning_content,
        parts if has_image else (),
    )


def _check_role(param: str, role: str, message: ChatMessage) -> None:
    own = {"tool_calls": "assistant", "reasoning_content": "assistant", "tool_call_id": "tool"}
    for name, only in own.items():
        if role != only and getattr(message, name):
            raise InvalidField(f"`{param}.{name}` goes with role `{only}`, not `{role}`.", param=f"{param}.{name}")


def _check_call(param: str, call_id: str | None, ids: set[str]) -> None:
    if call_id is None:
        raise InvalidField(f"`{param}` is required.", param=param)
    if call_id not in ids:
        raise InvalidField(f"`{param}`: no `tool_calls` of an earlier message has this id.", param=param)


def _parts(param: str, content: str | list[ContentPart] | None) -> tuple[TextPart | ImagePart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    if not content:
        raise InvalidField(f"`{param}` must be a string or a list of at least one part.", param=param)
    return tuple(_part(f"{param}[{index}]", part) for index, part in enumerate(content))


def _part(param: str, part: ContentPart) -> TextPart | ImagePart:
    for name in ("text", "image_url", "input_audio", "file", "refusal"):
        if part.type in ("text", "image_url") and name != part.type and getattr(part, name) is not None:
            where = f"{param}.{name}"
            raise InvalidField(f"`{where}` does not belong to a part of type `{part.type}`.", param=where)
    match part.type:
        case "text":
            if part.text is None:
                raise InvalidField(f"`{param}.text` is required.", param=f"{param}.text")
            return TextPart(part.text)
        case "image_url":
            if part.image_url is None:
                raise InvalidField(f"`{param}.image_url` is required.", param=f"{param}.image_url")
            return ImagePart(read_image_url(param, part.image_url.url))
        case _:
            raise unsupported(f"{param}.type", f"Content of type `{part.type[:60]}`")
