"""What may be pinned."""

from __future__ import annotations

import re

from paddler.errors import InvalidField
from paddler.images import images_of
from paddler.payload import check_payload
from paddler.prefixes.records import MAX_BYTES
from paddler.tenants.records import NAME_PATTERN, NAME_RULE
from paddler.wire.agent import Generate, encode_payload


def check_name(name: str, field: str = "name") -> None:
    """Raises `InvalidField`."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidField(f"`{field}` {name[:80]!r} must be {NAME_RULE}.", param=field)


def check_content(content: Generate) -> None:
    """A beginning of conversations, or of prompts, and nothing else. Raises `InvalidField`."""
    if content.messages is not None and content.prompt is not None:
        raise InvalidField("Give `messages` or `prompt`, not both.", param="prompt")
    if content.messages is None and content.prompt is None:
        raise InvalidField("Give `messages`, or a `prompt`.", param="messages")
    if content.prompt == "":
        raise InvalidField("`prompt` must not be empty.", param="prompt")
    if content.tools and content.messages is None:
        raise InvalidField("`tools` go with `messages`, not with a `prompt`.", param="tools")
    for name, _ in images_of(content):
        raise InvalidField(f"`{name}`: a pinned prefix is text alone; leave images out.", param=name)
    check_payload(content)
    if (size := len(encode_payload(content))) > MAX_BYTES:
        field = "messages" if content.prompt is None else "prompt"
        raise InvalidField(f"`{field}`: a pinned prefix has at most {MAX_BYTES} bytes, not {size}.", param=field)
