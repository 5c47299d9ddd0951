"""Schemas of values without parts, and constants, as GBNF."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from paddler.structure.formats import FORMATS
from paddler.structure.numbers import MAX_BOUND_DIGITS, decimals, integers
from paddler.structure.patterns import PatternError, pattern_to_gbnf
from paddler.structure.schema_parts import SchemaError, types_of
from paddler.structure.writing import one_of, repeated, trie

MAX_VALUES = 1000
MAX_COUNT = 1000
"""Of characters or items that a bound may speak of: each becomes a rule of llama.cpp's."""


def constants_gbnf(keywords: dict[str, Any], path: str) -> str:
    values: list[Any] = [keywords["const"]] if "const" in keywords else keywords["enum"]
    if len(values) > MAX_VALUES:
        raise SchemaError(path, f"`enum` has more than {MAX_VALUES} values")
    more = sorted(set(keywords) - {"const", "enum", "type"})
    if more or {"const", "enum"} <= set(keywords):
        raise SchemaError(path, f"`{(more or ['enum'])[0]}` beside constants cannot be enforced; leave it out")
    if "type" in keywords:
        types = types_of(keywords, path)
        values = [value for value in values if any(_is_of(value, type_) for type_ in types)]
    if not values:
        raise SchemaError(path, "no value of `enum` has the `type`")
    return trie([_json(value, path) for value in values])


def string_gbnf(own: dict[str, Any], path: str) -> str:
    kinds = [name for name in ("pattern", "format") if name in own]
    if len(kinds) == 2 or (kinds and len(own) > 1):
        raise SchemaError(path, f"`{kinds[0]}` beside another bound of a string cannot be enforced; leave one out")
    if "pattern" in own:
        try:
            return rf'"\"" {one_of([pattern_to_gbnf(str(own["pattern"]))])} "\""'
        except PatternError as error:
            raise SchemaError(path, str(error)) from None
    if "format" in own:
        if (found := FORMATS.get(str(own["format"]))) is None:
            names = ", ".join(FORMATS)
            raise SchemaError(path, f"format {str(own['format'])[:60]!r} cannot be enforced; known are {names}")
        return rf'"\"" {one_of([found])} "\""'
    least, most = count_bounds(own, "minLength", "maxLength", path)
    return rf'"\"" {repeated("char", least, most)} "\""'


def number_gbnf(own: dict[str, Any], is_integer: bool, path: str) -> str:
    if "multipleOf" in own and not (is_integer and own.pop("multipleOf") == 1):
        raise SchemaError(path, "`multipleOf` cannot be enforced; leave it out")
    bounds = {name: _decimal(name, value, path) for name, value in own.items()}
    low, above = _tightest(bounds.get("minimum"), bounds.get("exclusiveMinimum"), max)
    high, below = _tightest(bounds.get("maximum"), bounds.get("exclusiveMaximum"), min)
    if is_integer:
        least = None if low is None else math.floor(low) + 1 if above else math.ceil(low)
        most = None if high is None else math.ceil(high) - 1 if below else math.floor(high)
        found = integers(least, most)
    else:
        found = decimals(low, high, above=above, below=below)
    if found is None:
        raise SchemaError(path, "there is no number between its bounds")
    return found


def _tightest(bound: Decimal | None, excluded: Decimal | None, which: Any) -> tuple[Decimal | None, bool]:
    """The bound that counts, and whether it is left out itself."""
    if bound is None or excluded is None:
        return (bound, False) if excluded is None else (excluded, True)
    return (excluded, True) if which(bound, excluded) == excluded else (bound, False)


def _decimal(name: str, value: Any, path: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SchemaError(path, f"`{name}` must be a number")
    number = Decimal(repr(value))
    if abs(number) >= Decimal(10) ** MAX_BOUND_DIGITS or len(f"{number:f}".partition(".")[2]) > MAX_BOUND_DIGITS:
        raise SchemaError(path, f"`{name}` has more than {MAX_BOUND_DIGITS} digits")
    return number


def count_bounds(own: dict[str, Any], least_name: str, most_name: str, path: str) -> tuple[int, int | None]:
    least, most = own.get(least_name, 0), own.get(most_name)
    for name, value in ((least_name, least), (most_name, 0 if most is None else most)):
        if value > MAX_COUNT:
            raise SchemaError(path, f"`{name}` must be at most {MAX_COUNT}")
    if most is not None and most < least:
        raise SchemaError(path, f"`{most_name}` is less than `{least_name}`")
    return least, most


def _is_of(value: Any, type_: str) -> bool:
    match type_:
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value % 1 == 0)
            )
        case "number":
            return not isinstance(value, bool) and isinstance(value, int | float)
        case _:
            kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
            return isinstance(value, kinds[type_])


def _json(value: Any, path: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise SchemaError(path, "a constant must be a JSON value")
    return json.dumps(value, ensure_ascii=False)
