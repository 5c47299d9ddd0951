"""The `tools` of a native request, as the wire has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from api.native.schema import NativeTool
from api.tools import Declared, check_size, check_tools
from api.validation import decode_body
from paddler.errors import InvalidField
from paddler.wire.agent import Tool

_any_decoder = msgspec.json.Decoder()


def read_native_tools(parts: Sequence[NativeTool]) -> tuple[Tool, ...]:
    """Raises `InvalidField`, also for parameters that cannot be enforced."""
    declared = [_declared(f"tools[{index}].function", part) for index, part in enumerate(parts)]
    check_size(declared)
    for one in declared:
        # Before it is asked whether they can be enforced, which has other words for the same.
        _check_required(one.schema_at, decode_body(bytes(one.parameters), _any_decoder, {}))
    return check_tools(declared)


def _declared(param: str, part: NativeTool) -> Declared:
    function = part.function
    return Declared(f"{param}.name", function.name, function.description, f"{param}.parameters", function.parameters)


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
