"""What a chat request says of tools: as the wire has it, or the field that is wrong, before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from api.openai.schema import ChatRequest
from api.openai.tool_schema import CallPart, NamedChoice, ToolPart
from api.tools import Declared, check_tools
from api.validation import is_deeper, unsupported
from paddler.chat_formats.variables import ENABLE_THINKING, MAX_NAME, MAX_VARIABLES, OWN
from paddler.errors import InvalidField
from paddler.wire.agent import Tool, ToolCall, ToolChoice

MAX_DEPTH = 64
"""Of variables for a template: an agent reads them with less of a stack than a balancer."""


def read_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """Raises `InvalidField`, also for parameters that cannot be enforced."""
    for name, is_asked in (
        ("functions", bool(request.functions)),
        ("function_call", request.function_call not in (None, "none", "auto")),
    ):
        if is_asked:
            now = "tools" if name == "functions" else "tool_choice"
            raise InvalidField(f"`{name}` is deprecated and not supported: send `{now}` instead.", param=name)
    return check_tools([_declared(f"tools[{index}]", part) for index, part in enumerate(request.tools or ())])


def _declared(param: str, part: ToolPart) -> Declared:
    if part.type != "function" or part.custom is not None:
        raise unsupported(f"{param}.type", f"A tool of type `{part.type[:60]}`")
    function = part.function
    if function is None:
        raise InvalidField(f"`{param}.function` is required.", param=f"{param}.function")
    where = f"{param}.function"
    return Declared(f"{where}.name", function.name, function.description, f"{where}.parameters", function.parameters)


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
