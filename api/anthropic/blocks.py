"""What a message of Anthropic's protocol is made of.

`null` means absent. A field typed `None`, or held to the one value that changes nothing, belongs to the protocol and is
not supported yet: `NOT_YET` in `schema.py` has the words for its error. `cache_control` changes nothing: caching is
automatic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

MAX_ID = 256

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Nothing = Annotated[list[object], Meta(max_length=0)]
Anything = dict[str, object]


class Base64Source(Struct, tag="base64", forbid_unknown_fields=True):
    """The bytes say themselves what they are; `media_type` is not compared with them."""

    data: str
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]


class UrlSource(Struct, tag="url", forbid_unknown_fields=True):
    url: str


class FileSource(Struct, tag="file", forbid_unknown_fields=True):
    file_id: str


class TextBlock(Struct, tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: Anything | None = None
    citations: Nothing | None = None


class ImageBlock(Struct, tag="image", forbid_unknown_fields=True):
    source: Base64Source | UrlSource | FileSource
    cache_control: Anything | None = None
    transformations: None = None


class Caller(Struct, forbid_unknown_fields=True):
    type: Literal["direct"]


class ToolUseBlock(Struct, tag="tool_use", forbid_unknown_fields=True):
    """`input` is kept as it was sent."""

    id: Id
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    input: Raw
    cache_control: Anything | None = None
    caller: Caller | None = None
    toolset_name: None = None


class ToolResultBlock(Struct, tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: Id
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None
    cache_control: Anything | None = None
    toolset_name: None = None


class ThinkingBlock(Struct, tag="thinking", forbid_unknown_fields=True):
    """What an earlier answer has thought. Its `signature` is not looked at."""

    thinking: str
    signature: str = ""


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock


class MessagePart(Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]
