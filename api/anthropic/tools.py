"""What a request says of tools, as the wire has it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from api.anthropic.schema import NOT_YET, ToolChoicePart, ToolKind, ToolPart
from api.tools import Declared, check_tools
from api.validation import decode_body, unsupported
from paddler.errors import InvalidField
from paddler.wire.agent import Tool, ToolChoice

_kind_decoder = msgspec.json.Decoder(ToolKind)
_tool_decoder = msgspec.json.Decoder(ToolPart)


def read_tools(tools: Sequence[Raw] | None) -> tuple[Tool, ...]:
    """Raises `InvalidField`, also for schemas that cannot be enforced."""
    return check_tools([_declared(f"tools[{index}]", raw) for index, raw in enumerate(tools or ())])


def _declared(where: str, raw: Raw) -> Declared:
    kind = decode_body(raw, _kind_decoder, NOT_YET, where).type or "custom"
    if kind != "custom":
        raise unsupported(f"{where}.type", f"A tool of type `{kind[:60]}`, that is not `custom`,")
    part = decode_body(raw, _tool_decoder, NOT_YET, where)
    if part.defer_loading:
        raise unsupported(f"{where}.defer_loading", "`defer_loading`")
    if part.eager_input_streaming is False:
        raise InvalidField(
            f"`{where}.eager_input_streaming`: inputs always come as they are written; leave it out.",
            param=f"{where}.eager_input_streaming",
        )
    return Declared(f"{where}.name", part.name, part.description, f"{where}.input_schema", part.input_schema)


def read_tool_choice(choice: ToolChoicePart | None, tools: Sequence[Tool]) -> tuple[ToolChoice, str | None]:
    """Whether a tool is called, and which if it is one. Raises `InvalidField`."""
    if choice is None:
        return "auto", None
    if (choice.name is not None) != (choice.type == "tool"):
        raise InvalidField("`tool_choice.name` goes with the type `tool`, which needs it.", param="tool_choice.name")
    if choice.type == "none" and choice.disable_parallel_tool_use is not None:
        raise InvalidField(
            "`tool_choice.disable_parallel_tool_use` does not go with the type `none`.",
            param="tool_choice.disable_parallel_tool_use",
        )
    match choice.type:
        case "auto" | "none":
            return choice.type, None
        case "any":
            if not tools:
                raise InvalidField("`tool_choice` needs `tools`.", param="tool_choice")
            return "required", None
        case "tool":
            name = choice.name
            if all(tool.name != name for tool in tools):
                raise InvalidField(
                    f"`tool_choice`: `tools` has none that is called {(name or '')[:64]!r}.", param="tool_choice"
                )
            return "required", name
