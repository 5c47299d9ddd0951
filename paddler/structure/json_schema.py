"""A JSON schema as GBNF: whatever the grammar lets through is valid, and what it cannot enforce is refused.

The other way round it may be narrower than the schema, where that costs no answer worth having:

- Properties come in the order of the schema, then additional ones; those of an object with `properties` only if
  `additionalProperties` says so.
- A schema that names no type takes the type its keywords are about.
- Numbers have at most 15 digits before and behind the point, and no exponent where they have bounds. Dates are from
  1000 to 2999.
- Between the parts of an object or array there is at most a space, or a line end and 20 spaces.

It is bounded (`MAX_*`), because a balancer does this while others wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from paddler.structure.gbnf import MAX_CHARS, ROOT, check_gbnf
from paddler.structure.numbers import INTEGER, NUMBER
from paddler.structure.rules import GrammarError
from paddler.structure.scalars import constants_gbnf, count_bounds, number_gbnf, string_gbnf
from paddler.structure.schema_parts import (
    SchemaError,
    are_disjoint,
    keywords_of,
    merged,
    of_type,
    resolve,
    types_of,
)
from paddler.structure.writing import ESCAPED, PLAIN, json_literal, one_of, other_key, repeated

MAX_DEPTH = 48
MAX_SCHEMAS = 2000
MAX_BYTES = 131_072
MAX_KEY = 100
"""Of a property beside which there may be others."""

SHARED_RULES = {
    "ws": r'(" " | "\n" " "{0,20})?',
    "char": f"{PLAIN} | {ESCAPED}",
    "string": r'"\"" char* "\""',
    "integer": INTEGER,
    "number": NUMBER,
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": r'"{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
}


def json_schema_to_gbnf(schema: object) -> str:
    """Raises `SchemaError`, or `GrammarError` for one that becomes too large."""
    if len(msgspec.json.encode(schema)) > MAX_BYTES:
        raise GrammarError(f"it has more than {MAX_BYTES} bytes")
    grammar = _Converter(schema).grammar()
    check_gbnf(grammar)
    return grammar


def write_rules(rules: Mapping[str, str]) -> str:
    """A grammar of these and the shared rules, which come first: llama.cpp counts new names as rules that a repetition
    makes."""
    return "\n".join(f"{name} ::= {rule}" for name, rule in (SHARED_RULES | dict(rules)).items())


def json_object_gbnf() -> str:
    """Any JSON object."""
    return json_schema_to_gbnf({"type": "object"})


def json_schema_rules(schema: object, prefix: str) -> tuple[str, dict[str, str]]:
    """For a grammar that has several schemas in it: an item of GBNF for the values of this one, and rules whose names
    begin with `prefix`. They need `SHARED_RULES` beside them. Raises as `json_schema_to_gbnf`, but checks no rule."""
    if len(msgspec.json.encode(schema)) > MAX_BYTES:
        raise GrammarError(f"it has more than {MAX_BYTES} bytes")
    converter = _Converter(schema, prefix)
    return converter.item(), converter.rules


class _Converter:
    def __init__(self, root: object, prefix: str = "r") -> None:
        self._prefix = prefix
        self._root: Mapping[str, Any] = cast("Mapping[str, Any]", root) if isinstance(root, Mapping) else {}
        self._top: Any = root
        self.rules: dict[str, str] = {}
        self._by_ref: dict[str, str] = {}
        self._num_schemas = 0
        self._size = 0

    def grammar(self) -> str:
        self.rules[ROOT] = self.item()
        return write_rules(self.rules)

    def item(self) -> str:
        """For the values of the whole schema."""
        return self._visit(self._top, "", 0)

    def _rule(self, body: str) -> str:
        """A rule of its own; returns its name."""
        name = f"{self._prefix}{len(self.rules)}"
        self._put(name, body)
        return name

    def _put(self, name: str, body: str) -> None:
        self.rules[name] = body
        self._size += len(body)
        if self._size > MAX_CHARS:
            raise GrammarError(f"it becomes a grammar of more than {MAX_CHARS} characters")

    def _visit(self, schema: Any, path: str, depth: int) -> str:
        """One item of GBNF for the values of a schema."""
        self._num_schemas += 1
        if depth > MAX_DEPTH:
            raise SchemaError(path, f"it is nested deeper than {MAX_DEPTH} levels")
        if self._num_schemas > MAX_SCHEMAS:
            raise SchemaError(path, f"it consists of more than {MAX_SCHEMAS} schemas")
        if schema is True:
            return "value"
        if not isinstance(schema, Mapping):
            raise SchemaError(path, "nothing can satisfy `false`" if schema is False else "a schema must be an object")
        keywords = keywords_of(schema, path)  # pyright: ignore[reportUnknownArgumentType]
        if "$ref" in keywords and len(keywords) == 1:
            return self._reference(keywords["$ref"], path, depth)
        for combining in ("$ref", "allOf", "anyOf", "oneOf"):
            if combining in keywords:
                return self._combined(combining, keywords, path, depth)
        if "const" in keywords or "enum" in keywords:
            return constants_gbnf(keywords, path)
        parts = [self._typed(type_, keywords, path, depth) for type_ in types_of(keywords, path)]
        return parts[0] if len(parts) == 1 else one_of(parts)

    def _reference(self, ref: Any, path: str, depth: int) -> str:
        target = resolve(self._root, ref, path)
        if ref not in self._by_ref:
            # Before it is visited: it may lead back here.
            self._by_ref[ref] = name = self._rule("")
            self._put(name, self._visit(target, ref.removeprefix("#"), depth + 1))
        return self._by_ref[ref]

    def _combined(self, combining: str, keywords: dict[str, Any], path: str, depth: int) -> str:
        rest = {name: value for name, value in keywords.items() if name != combining}
        value = keywords[combining]
        if combining == "$ref":
            return self._visit(
                merged([self._schema(resolve(self._root, value, path), path), rest], path), path, depth + 1
            )
        branches: list[Any] = value
        if combining == "allOf":
            return self._visit(merged([rest, *(self._followed(one, path) for one in branches)], path), path, depth + 1)
        if combining == "oneOf" and not _are_apart(branches, self._root):
            raise SchemaError(
                path, "`oneOf` can only be enforced where its schemas plainly exclude each other; use `anyOf`"
            )
        places = [f"{path}/{combining}/{index}" for index in range(len(branches))]
        return one_of(
            self._visit(merged([rest, self._followed(one, place)], place) if rest else one, place, depth + 1)
            for one, place in zip(branches, places, strict=True)
        )

    def _followed(self, schema: Any, path: str) -> Mapping[str, Any]:
        """What is joined with others must be written out."""
        found = self._schema(schema, path)
        return self._schema(resolve(self._root, found["$ref"], path), path) if list(found) == ["$ref"] else found

    def _schema(self, schema: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(schema, Mapping):
            raise SchemaError(path, "a schema that is joined with another must be an object")
        return keywords_of(schema, path)  # pyright: ignore[reportUnknownArgumentType]

    def _typed(self, type_: str, keywords: dict[str, Any], path: str, depth: int) -> str:
        own = of_type(keywords, type_)
        if not own:
            return type_
        match type_:
            case "object":
                return self._object(own, path, depth)
            case "array":
                return self._array(own, path, depth)
            case "string":
                return string_gbnf(own, path)
            case _:
                return number_gbnf(own, type_ == "integer", path)

    def _object(self, own: dict[str, Any], path: str, depth: int) -> str:
        _refuse_all_but(own, ("properties", "required", "additionalProperties", "minProperties"), path)
        properties: Mapping[str, Any] = own.get("properties", {})
        required: list[str] = own.get("required", [])
        more: Any = own.get("additionalProperties", not properties)
        names = list(dict.fromkeys([*properties, *required]))
        if own.get("minProperties", 0) > len(set(required)):
            raise SchemaError(path, "`minProperties` above the number of required ones cannot be enforced")
        if len(names) > len(properties) and more is False:
            raise SchemaError(path, f"{names[-1][:60]!r} is required, but is no property and no additional ones may be")
        pairs: list[tuple[str, bool]] = []
        for name in names:
            value = properties.get(name, more)
            if value is False and name not in required:
                continue
            item = self._visit(value, f"{path}/properties/{name[:60]}", depth + 1)
            pairs.append((self._rule(f'{json_literal(name)} ws ":" ws {item} ws'), name in required))
        rest = "" if more is False else self._more(names, more, path, depth)
        return self._rule('"{" ws ' + self._members(pairs, rest) + ' "}"')

    def _more(self, names: Sequence[str], schema: Any, path: str, depth: int) -> str:
        """A member whose key is none of the names."""
        if any(len(name) > MAX_KEY for name in names):
            raise SchemaError(path, f"a property's name has more than {MAX_KEY} characters")
        key = other_key([_inside(name) for name in names], self._rule) if names else "char*"
        item = self._visit(schema, f"{path}/additionalProperties", depth + 1)
        return self._rule(rf'"\"" {key} "\"" ws ":" ws {item} ws')

    def _members(self, pairs: Sequence[tuple[str, bool]], rest: str) -> str:
        """What may be between the braces: built from its end, once for a member before it and once for none."""
        after = f'("," ws {rest})*' if rest else '""'
        first = f'({rest} ("," ws {rest})*)?' if rest else '""'
        for pair, is_required in reversed(pairs):
            if is_required:
                first, after = f"{pair} {after}", f'"," ws {pair} {after}'
            else:
                tail = self._rule(after)
                first = one_of((f"{pair} {tail}", self._rule(first)))
                after = f'("," ws {pair})? {tail}'
        return first

    def _array(self, own: dict[str, Any], path: str, depth: int) -> str:
        _refuse_all_but(own, ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), path)
        if own.get("uniqueItems", False) is not False:
            raise SchemaError(path, "`uniqueItems` cannot be enforced; leave it out")
        least, most = count_bounds(own, "minItems", "maxItems", path)
        head: list[Any] = own.get("prefixItems", [])
        items: Any = own.get("items", True)
        if isinstance(items, list):  # As drafts before 2020-12 have it.
            raise SchemaError(path, "a list of `items` is called `prefixItems` now")
        places = [self._visit(one, f"{path}/prefixItems/{n}", depth + 1) for n, one in enumerate(head)]
        places = places[: len(places) if most is None else most]
        if items is False and least > len(places):
            raise SchemaError(path, "`minItems` asks for more items than there may be")
        more = ""
        if items is not False and (most is None or most > len(places)):
            item = self._rule(self._visit(items, f"{path}/items", depth + 1) + " ws")
            left = None if most is None else most - len(places) - (not places)
            again = self._rule(f'"," ws {item}')
            more = repeated(again, max(least - len(places) - (not places), 0), left)
            if not places:
                more = f"{item} {more}" if least else f"({item} {more})?"
        for index in range(len(places) - 1, -1, -1):
            more = f"{places[index]} ws {more}" if index == 0 else f'"," ws {places[index]} ws {more}'
            if index >= least:
                more = f"({more})?"
        return self._rule(f'"[" ws {more} "]"')


def _refuse_all_but(own: dict[str, Any], names: Sequence[str], path: str) -> None:
    for name in own:
        if name not in names:
            raise SchemaError(path, f"`{name}` cannot be enforced; leave it out")


def _are_apart(branches: Sequence[Any], root: Mapping[str, Any]) -> bool:
    return all(are_disjoint(one, other, root) for index, one in enumerate(branches) for other in branches[:index])


def _inside(name: str) -> str:
    """A key as JSON has it between the quotes."""
    return json.dumps(name, ensure_ascii=False)[1:-1]
