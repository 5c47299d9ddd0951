"""The arguments of a call that was cut off: what an object can be made of."""

from __future__ import annotations

import msgspec


def whole_part(text: str) -> str:
    """The JSON text of an object: `text` itself if it is one, else all that is complete of its beginning. Member by
    member, so that a number or a string that may have gone on is left out."""
    if _is_object(text):
        return text
    closing: list[str] = []
    end, brackets = 0, ""
    is_string = is_escaped = False
    for index, char in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_string:
            is_escaped, is_string = char == "\\", char != '"'
        elif char == '"':
            is_string = True
        elif char in "{[":
            closing.append("}" if char == "{" else "]")
            end, brackets = index + 1, "".join(reversed(closing))
        elif char in "}]" and closing:
            closing.pop()
            end, brackets = index + 1, "".join(reversed(closing))
        elif char == ",":
            end, brackets = index, "".join(reversed(closing))
    part = text[:end] + brackets
    return part if _is_object(part) else "{}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False
