"""Random JSON schemas of everything that is enforced. What they allow is of bounded length, so that an answer ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

_WORDS = ("name", "age", "tags", "über", "is ok", 'quo"te', "back\\slash", "e-mail", "née", "x")
_PATTERNS = (
    "^[A-Z]{2,4}-[0-9]{3}$",
    r"^\d{3}(-\d{4})?$",
    "^(red|green|blue)$",
    '^["\\\\a-c]{1,5}$',
    r"^\w+ \w{1,8}\.$",
)
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email")


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern", "format", "nullable"]
    if depth < 3:
        kinds += ["object", "object", "object", "array", "tuple", "anyOf", "oneOf", "allOf"]
    return _OF_KIND[rng.choice(kinds if depth else ["object", "object", "array", "anyOf"])](rng, depth)


def random_object(rng: random.Random) -> dict[str, Any]:
    """A schema of objects alone, as the arguments of a tool are, and a small one: a model has to read several."""
    return _object(rng, 2)


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_WORDS, rng.randint(0, 4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(rng, depth + 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "title": "An object",
    }
    if rng.random() < 0.8:
        schema["additionalProperties"] = False
    return schema if names else {"type": "object", "additionalProperties": False}


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randint(0, 3)
    most = least + rng.randint(0, 2)
    return {"type": "array", "items": random_schema(rng, depth + 1), "minItems": least, "maxItems": most}


def _tuple(rng: random.Random, depth: int) -> dict[str, Any]:
    places = [random_schema(rng, depth + 2) for _ in range(rng.randint(1, 3))]
    return {"type": "array", "prefixItems": places, "items": False, "minItems": rng.randint(0, len(places))}


def _any_of(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}


def _one_of(rng: random.Random, depth: int) -> dict[str, Any]:
    """As pydantic writes unions with a discriminator."""
    branches = [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "value": random_schema(rng, depth + 1)},
            "required": ["kind", "value"],
            "additionalProperties": False,
        }
        for kind in rng.sample(["cat", "dog", "fish"], 2)
    ]
    return {"oneOf": branches, "discriminator": {"propertyName": "kind"}}


def _all_of(rng: random.Random, depth: int) -> dict[str, Any]:
    inner = random_schema(rng, depth + 1)
    return {"allOf": [{"$ref": "#/$defs/inner"}], "description": "joined"} if depth == 0 else {"allOf": [inner]}


def _string(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randint(0, 4)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 20)}


def _bounds(rng: random.Random, low: float, high: float) -> dict[str, Any]:
    if low > high:
        low, high = high, low
    schema: dict[str, Any] = {}
    if rng.random() < 0.7:
        schema["minimum"] = low
    if rng.random() < 0.7:
        schema[rng.choice(("maximum", "exclusiveMaximum"))] = high + 1
    return schema


def _integer(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "integer", **_bounds(rng, rng.randint(-200, 200), rng.randint(-2000, 2000))}


def _number(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "number", **_bounds(rng, round(rng.uniform(-9, 9), 2), round(rng.uniform(-99, 99), 1))}


def _enum(rng: random.Random, depth: int) -> dict[str, Any]:
    values = ["red", "re", "green", 'a "b"', 1, 2.5, None, True, [], {"k": [1]}]
    return {"enum": rng.sample(values, rng.randint(1, 5))}


def _nullable(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": [rng.choice(("integer", "boolean")), "null"]}


def _const(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"const": rng.choice(["yes", 7, None, ["a"], "tab\there"])}


def _pattern(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", "pattern": rng.choice(_PATTERNS)}


def _format(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "string", "format": rng.choice(_FORMATS)}


def _simple(type_: str) -> Callable[[random.Random, int], dict[str, Any]]:
    return lambda rng, depth: {"type": type_}


_OF_KIND = {
    "object": _object,
    "array": _array,
    "tuple": _tuple,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "allOf": _all_of,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _simple("boolean"),
    "null": _simple("null"),
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "format": _format,
    "nullable": _nullable,
}
