"""Tools as the wire has them, from what a client says of them in whichever protocol: or the field that is wrong, before
anything is queued."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from api.validation import decode_body
from paddler.chat_formats.families import FALLBACK
from paddler.chat_formats.grammars import arguments_schema, tools_grammar
from paddler.chat_formats.tool_rules import ToolSchemaError
from paddler.errors import InvalidField
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError
from paddler.wire.agent import Tool
from paddler.wire.balancer import TextFormat

MAX_TOOLS = 128
"""As many as OpenAI takes."""
MAX_DESCRIPTION = 16_384
"""Characters. Of parameters the grammar is kept for the next request, of a description nothing."""
MAX_TOOLS_BYTES = 262_144
"""Of all tools of a request together, as they were sent."""

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_any_decoder = msgspec.json.Decoder()


class Declared(Struct, frozen=True):
    """A tool that a client declares: `parameters` as they were sent. `name_at` and `schema_at` are what it calls the
    fields with the name and with the parameters."""

    name_at: str
    name: str
    description: str | None
    schema_at: str
    parameters: Raw


def check_tools(declared: Sequence[Declared]) -> tuple[Tool, ...]:
    """Raises `InvalidField`, also for parameters that cannot be enforced."""
    check_size(declared)
    tools: list[Tool] = []
    names: set[str] = set()
    for one in declared:
        tool = _tool(one)
        if tool.name in names:
            raise InvalidField(f"`{one.name_at}`: another tool is called {tool.name!r} too.", param=one.name_at)
        names.add(tool.name)
        tools.append(tool)
    if tools:
        _check_schemas(tuple(tools), declared)
    return tuple(tools)


def check_size(declared: Sequence[Declared]) -> None:
    """Before anything of them is read. Raises `InvalidField`."""
    size = sum(len(memoryview(one.parameters)) + len((one.description or "").encode()) for one in declared)
    if size > MAX_TOOLS_BYTES:
        raise InvalidField(
            f"`tools` have {size} bytes of descriptions and parameters, more than {MAX_TOOLS_BYTES}; send fewer, or "
            "shorten them.",
            param="tools",
        )


def _tool(declared: Declared) -> Tool:
    if not _NAME.fullmatch(declared.name):
        raise InvalidField(
            f"`{declared.name_at}` must be 1 to 64 of the characters a-z, A-Z, 0-9, _, - and `.`.",
            param=declared.name_at,
        )
    try:
        parameters = arguments_schema(decode_body(bytes(declared.parameters), _any_decoder, {}))
    except SchemaError as error:
        raise InvalidField(f"`{declared.schema_at}`: {error}.", param=declared.schema_at) from None
    return Tool(declared.name, parameters, declared.description)


def _check_schemas(tools: tuple[Tool, ...], declared: Sequence[Declared]) -> None:
    """In any format: which one it is only an agent knows. Their grammars differ by a few characters a tool."""
    try:
        tools_grammar(tools, TextFormat(FALLBACK), is_required=False, is_parallel=True)
    except ToolSchemaError as error:
        param = declared[error.index].schema_at
        raise InvalidField(f"`{param}`: {error}.", param=param) from None
    except GrammarError as error:
        raise InvalidField(f"`tools`: {error}.", param="tools") from None
