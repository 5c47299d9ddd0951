"""What a chat request says of tools: as the wire has it, or the field that is wrong, before anything is queued."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from api.openai.schema import ChatRequest
from api.openai.tool_schema import MAX_TOOLS_BYTES, CallPart, FunctionPart, NamedChoice, ToolPart
from api.validation import decode_body, is_deeper, unsupported
from paddler.chat_formats.families import FALLBACK
from paddler.chat_formats.grammars import arguments_schema, tools_grammar
from paddler.chat_formats.tool_rules import ToolSchemaError
from paddler.chat_formats.variables import ENABLE_THINKING, MAX_NAME, MAX_VARIABLES, OWN
from paddler.errors import InvalidField
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import SchemaError
from paddler.wire.agent import Tool, ToolCall, ToolChoice
from paddler.wire.balancer import TextFormat

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
MAX_DEPTH = 64
"""Of variables for a template: an agent reads them with less of a stack than a balancer."""
_any_decoder = msgspec.json.Decoder()


def read_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """Raises `InvalidField`, also for parameters that cannot be enforced."""
    for name, is_asked in (
        ("functions", bool(request.functions)),
        ("function_call", request.function_call not in (None, "none", "auto")),
    ):
        if is_asked:
            now = "tools" if name == "functions" else "tool_choice"
            raise InvalidField(f"`{name}` is deprecated and not supported: send `{now}` instead.", param=name)
    _check_size(request.tools or ())
    tools: list[Tool] = []
    names: set[str] = set()
    for index, part in enumerate(request.tools or ()):
        tool = _tool(f"tools[{index}]", part)
        if tool.name in names:
            param = f"tools[{index}].function.name"
            raise InvalidField(f"`{param}`: another tool is called {tool.name!r} too.", param=param)
        names.add(tool.name)
        tools.append(tool)
    if tools:
        _check_schemas(tuple(tools))
    return tuple(tools)


def _check_size(parts: Sequence[ToolPart]) -> None:
    """Before anything of them is read."""
    functions = [part.function for part in parts if part.function is not None]
    if (size := sum(map(_num_bytes, functions))) > MAX_TOOLS_BYTES:
        raise InvalidField(
            f"`tools` have {size} bytes of descriptions and parameters, more than {MAX_TOOLS_BYTES}; send fewer, or "
            "shorten them.",
            param="tools",
        )


def _num_bytes(function: FunctionPart) -> int:
    return len(memoryview(function.parameters)) + len((function.description or "").encode())


def _tool(param: str, part: ToolPart) -> Tool:
    if part.type != "function" or part.custom is not None:
        raise unsupported(f"{param}.type", f"A tool of type `{part.type[:60]}`")
    function = part.function
    if function is None:
        raise InvalidField(f"`{param}.function` is required.", param=f"{param}.function")
    if not _NAME.fullmatch(function.name):
        raise InvalidField(
            f"`{param}.function.name` must be 1 to 64 of the characters a-z, A-Z, 0-9, _, - and `.`.",
            param=f"{param}.function.name",
        )
    try:
        parameters = arguments_schema(decode_body(bytes(function.parameters), _any_decoder, {}))
    except SchemaError as error:
        param = f"{param}.function.parameters"
        raise InvalidField(f"`{param}`: {error}.", param=param) from None
    return Tool(function.name, parameters, function.description)


def _check_schemas(tools: tuple[Tool, ...]) -> None:
    """In any format: which one it is only an agent knows. Their grammars differ by a few characters a tool."""
    try:
        tools_grammar(tools, TextFormat(FALLBACK), is_required=False, is_parallel=True)
    except ToolSchemaError as error:
        param = f"tools[{error.index}].function.parameters"
        raise InvalidField(f"`{param}`: {error}.", param=param) from None
    except GrammarError as error:
        raise InvalidField(f"`tools`: {error}.", param="tools") from None


def read_tool_choice(request: ChatRequest, tools: Sequence[Tool]) -> tuple[ToolChoice, str | None]:
    """Whether a tool is called, and which if it is one. Raises `InvalidField`."""
    choice = request.tool_choice
    if isinstance(choice, NamedChoice):
        if choice.type != "function" or choice.custom is not None or choice.allowed_tools is not None:
            raise unsupported("tool_choice.type", f"A choice of type `{choice.type[:60]}`")
        if choice.function is None:
            raise InvalidField("`tool_choice.function` is required.", param="tool_choice.function")
        name = choice.function.name
        if all(tool.name != name for tool in tools):
            raise InvalidField(f"`tool_choice`: `tools` has none that is called {name[:64]!r}.", param="tool_choice")
        return "required", name
    if choice == "required" and not tools:
        raise InvalidField("`tool_choice` needs `tools`.", param="tool_choice")
    return choice or "auto", None


def read_calls(param: str, parts: Sequence[CallPart]) -> tuple[ToolCall, ...]:
    """Those of an earlier turn. Raises `InvalidField`."""
    calls: list[ToolCall] = []
    for index, part in enumerate(parts):
        where = f"{param}[{index}]"
        if part.type != "function" or part.custom is not None:
            raise unsupported(f"{where}.type", f"A call of type `{part.type[:60]}`")
        if part.function is None:
            raise InvalidField(f"`{where}.function` is required.", param=f"{where}.function")
        calls.append(ToolCall(part.id, part.function.name, part.function.arguments))
    return tuple(calls)


def read_variables(request: ChatRequest) -> str:
    """JSON text of the variables that the client sets for the chat template, empty without any."""
    variables = request.chat_template_kwargs
    if not variables:
        return ""
    if len(variables) > MAX_VARIABLES:
        raise InvalidField(
            f"`chat_template_kwargs` has more than {MAX_VARIABLES} variables.", param="chat_template_kwargs"
        )
    for name, value in variables.items():
        param = f"chat_template_kwargs.{name[:MAX_NAME]}"
        if name in OWN or not 0 < len(name) <= MAX_NAME:
            raise InvalidField(f"`{param}` is no variable that a request can set.", param=param)
        if name == ENABLE_THINKING and not isinstance(value, bool):
            raise InvalidField(f"`{param}` must be true or false.", param=param)
    if is_deeper(variables, MAX_DEPTH):
        raise InvalidField(
            f"`chat_template_kwargs` is nested deeper than {MAX_DEPTH} levels.", param="chat_template_kwargs"
        )
    return msgspec.json.encode(variables).decode()
