"""The `tools` of a native request, as the wire has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from api.native.schema import NativeTool
from api.openai.tool_schema import MAX_TOOLS_BYTES
from api.validation import decode_body
from paddler.chat_formats.families import FALLBACK
from paddler.chat_formats.grammars import arguments_schema, tools_grammar
from paddler.chat_formats.tool_rules import ToolSchemaError
from paddler.errors import InvalidField
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError
from paddler.wire.agent import Tool
from paddler.wire.balancer import TextFormat

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_any_decoder = msgspec.json.Decoder()


def read_native_tools(parts: Sequence[NativeTool]) -> tuple[Tool, ...]:
    """Raises `InvalidField`, also for parameters that cannot be enforced."""
    size = sum(len(memoryview(part.function.parameters)) + len(part.function.description.encode()) for part in parts)
    if size > MAX_TOOLS_BYTES:
        raise InvalidField(
            f"`tools` have {size} bytes of descriptions and parameters, more than {MAX_TOOLS_BYTES}.", param="tools"
        )
    tools = tuple(_tool(f"tools[{index}].function", part) for index, part in enumerate(parts))
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidField(f"`tools`: two are called {twice!r}.", param="tools")
    if tools:
        _check_schemas(tools)
    return tools


def _tool(param: str, part: NativeTool) -> Tool:
    function = part.function
    if not _NAME.fullmatch(function.name):
        raise InvalidField(
            f"`{param}.name` must be 1 to 64 of the characters a-z, A-Z, 0-9, _, - and `.`.", param=f"{param}.name"
        )
    parameters = decode_body(bytes(function.parameters), _any_decoder, {})
    _check_required(f"{param}.parameters", parameters)
    try:
        return Tool(function.name, arguments_schema(parameters), function.description)
    except SchemaError as error:
        raise InvalidField(f"`{param}.parameters`: {error}.", param=f"{param}.parameters") from None


def _check_required(param: str, schema: Any) -> None:
    """As Paddler 4 does, in its words."""
    if not isinstance(schema, dict):
        return
    known: dict[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    properties: Any = known.get("properties") or {}
    required: Any = known.get("required") or []
    if isinstance(properties, dict) and isinstance(required, list):
        for name in cast("list[Any]", required):
            if name not in properties:
                raise InvalidField(f"Required field '{name}' not found in properties (`{param}`)", param=param)


def _check_schemas(tools: tuple[Tool, ...]) -> None:
    """In any format: which one it is only an agent knows."""
    try:
        tools_grammar(tools, TextFormat(FALLBACK), is_required=False, is_parallel=True)
    except ToolSchemaError as error:
        param = f"tools[{error.index}].function.parameters"
        raise InvalidField(f"`{param}`: {error}.", param=param) from None
    except GrammarError as error:
        raise InvalidField(f"`tools`: {error}.", param="tools") from None
