"""Every inference parameter, described by what reads and checks it, so that no form and no document has a list of its
own."""

from __future__ import annotations

import math
from typing import Any, Literal, cast, get_args

import msgspec
from msgspec import Struct, inspect, structs

from paddler.desired.checks import RANGES
from paddler.desired.engine import engine_options
from paddler.desired.meanings import MEANINGS
from paddler.desired.schema import OURS, InferenceParameters
from paddler.engine_settings import MAX_GPUS
from paddler.payload import MAX_BREAKER_CHARS, MAX_BREAKERS

Kind = Literal["integer", "number", "boolean", "choice", "text", "texts", "numbers", "adapters"]
"""`texts` and `numbers` are lists of them, `adapters` one of `DesiredAdapter`."""

_RENAMED = frozenset({"k_cache_dtype", "v_cache_dtype", "pooling_type"})
"""What the engine has another name for."""
RELOADING = _RENAMED | (MEANINGS.keys() & engine_options(InferenceParameters()).keys())
"""What agents load their model anew for."""


class ParameterDescription(Struct, frozen=True, kw_only=True):
    """`default` is what holds while nobody has set another. `minimum` and `maximum` are of numbers, both allowed; null:
    there is none; so of each of `numbers`. `choices` are of a `choice`; `max_length` is of a text, of each of `texts`;
    `max_items` is how many texts or numbers there are at most. `off` is the value that switches off what it does, if
    one does. `is_nullable`: null is a value, for none. `needs_reload`: agents load the model anew when it changes.
    `is_ours`: Paddler 4 does not have it."""

    name: str
    group: str
    meaning: str
    kind: Kind
    default: int | float | str | bool | list[str | float] | None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str] | None = None
    max_length: int | None = None
    max_items: int | None = None
    off: str | None = None
    is_nullable: bool = False
    needs_reload: bool = False
    is_ours: bool = False


def describe_parameters() -> list[ParameterDescription]:
    """By group, in the order in which they are shown."""
    fields = {field.name: field for field in structs.fields(InferenceParameters)}
    return [_described(name, fields[name]) for name in MEANINGS]


def _described(name: str, field: structs.FieldInfo) -> ParameterDescription:
    told = MEANINGS[name]
    kind, about = _kind_of(inspect.type_info(field.type))
    if kind == "choice":
        # As they are written: msgspec sorts them.
        about["choices"] = list(get_args(field.type))
    low, high = RANGES.get(name, (-math.inf, math.inf))
    default: Any = msgspec.to_builtins(field.default)
    return ParameterDescription(
        name=name,
        group=told.group.value,
        meaning=told.meaning,
        kind=kind,
        default=list(cast("list[str]", default)) if isinstance(default, list | tuple) else default,
        minimum=None if math.isinf(low) else low,
        maximum=None if math.isinf(high) else high,
        off=told.off or None,
        needs_reload=name in RELOADING,
        is_ours=name in OURS,
        **about,
    )


def _kind_of(type_: inspect.Type) -> tuple[Kind, dict[str, Any]]:
    match type_:
        case inspect.BoolType():
            return "boolean", {}
        case inspect.IntType():
            return "integer", {}
        case inspect.FloatType():
            return "number", {}
        case inspect.LiteralType():
            return "choice", {}
        case inspect.UnionType(types=(inspect.StrType(max_length=length), inspect.NoneType())):
            return "text", {"max_length": length, "is_nullable": True}
        case inspect.VarTupleType(item_type=inspect.StrType()):
            return "texts", {"max_length": MAX_BREAKER_CHARS, "max_items": MAX_BREAKERS}
        case inspect.VarTupleType(item_type=inspect.FloatType()):
            return "numbers", {"max_items": MAX_GPUS}
        case inspect.VarTupleType(item_type=inspect.StructType()):
            return "adapters", {}
        case _:
            raise TypeError(f"no way to show a parameter of the type {type_!r}")
