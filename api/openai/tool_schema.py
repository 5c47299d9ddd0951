"""The parts of a chat request that are about tools."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from api.tools import MAX_DESCRIPTION, MAX_TOOLS

MAX_ID = 256


Function = Annotated[str, Meta(extra_json_schema={"enum": ["function"]})]
"""The one kind of tool there is; others are refused by name."""
ToolName = Annotated[str, Meta(extra_json_schema={"pattern": "^[a-zA-Z0-9_.-]{1,64}$"})]


class FunctionPart(Struct, forbid_unknown_fields=True):
    """`strict` changes nothing: a schema is always enforced in full. `parameters` are bytes until it is known how many
    there are of all tools."""

    name: ToolName
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] | None = None
    parameters: Raw = field(default_factory=partial(Raw, b"null"))
    strict: bool | None = None


class ToolPart(Struct, forbid_unknown_fields=True):
    type: Function
    function: FunctionPart | None = None
    custom: object = None


class FunctionName(Struct, forbid_unknown_fields=True):
    name: str


class NamedChoice(Struct, forbid_unknown_fields=True):
    type: Function
    function: FunctionName | None = None
    custom: object = None
    allowed_tools: object = None


ToolChoicePart = Literal["none", "auto", "required"] | NamedChoice
Tools = Annotated[list[ToolPart], Meta(max_length=MAX_TOOLS)]


class CallFunction(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    arguments: str


class CallPart(Struct, forbid_unknown_fields=True):
    """`index` is left over from a stream, where clients have put a call together themselves."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
    type: Function = "function"
    function: CallFunction | None = None
    custom: object = None
    index: int | None = None
