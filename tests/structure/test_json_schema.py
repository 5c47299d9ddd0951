"""Which schemas are refused, and where. What the grammars of the others let through: `tests/engine/test_grammar.py`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.structure.gbnf import check_gbnf
from paddler.structure.json_schema import json_object_gbnf, json_schema_to_gbnf
from paddler.structure.rules import GrammarError
from paddler.structure.schema_parts import GENERAL, OF_TYPE, SchemaError


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (7, "a schema must be an object"),
        (None, "a schema must be an object"),
        (False, "nothing can satisfy `false`"),
        ({"type": "text"}, "`type` must be one of"),
        ({"type": []}, "`type` must be a type or types"),
        ({"type": 7}, "`type` must be a type or types"),
        ({"not": {"type": "null"}}, "`not` cannot be enforced"),
        ({"if": {}, "then": {}}, "`if` cannot be enforced"),
        ({"nullable": True, "type": "string"}, "`nullable` cannot be enforced"),
        ({"type": "array", "uniqueItems": True}, "`uniqueItems`"),
        ({"type": "array", "contains": {}}, "`contains`"),
        ({"type": "array", "items": [{}]}, "prefixItems"),
        ({"type": "array", "prefixItems": [{}], "items": False, "minItems": 2}, "`minItems`"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "`maxItems` is less"),
        ({"type": "array", "maxItems": 5000}, "at most 1000"),
        ({"type": "string", "minLength": -1}, "`minLength` must be a whole number"),
        ({"type": "string", "minLength": 1.5}, "`minLength` must be a whole number"),
        ({"type": "string", "pattern": "^a$", "maxLength": 3}, "`pattern` beside"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "(a"}, "`(` without `)`"),
        ({"type": "string", "pattern": "a**"}, "repetition of a repetition"),
        ({"type": "string", "pattern": "(a)\\1"}, "`\\1`"),
        ({"type": "string", "format": "uri"}, "format 'uri' cannot be enforced; known are date"),
        ({"type": "number", "multipleOf": 0.5}, "`multipleOf`"),
        ({"type": "number", "minimum": "1"}, "`minimum` must be a number"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number between"),
        ({"type": "integer", "minimum": 2.1, "exclusiveMaximum": 3}, "no number between"),
        ({"type": "number", "minimum": 1e300}, "digits"),
        ({"type": "object", "minProperties": 1}, "`minProperties`"),
        ({"type": "object", "maxProperties": 1}, "`maxProperties`"),
        ({"type": "object", "patternProperties": {}}, "`patternProperties`"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "'a' is required"),
        ({"type": "object", "required": [["a"]]}, "`required` must be a list of strings"),
        ({"properties": []}, "`properties` must be an object"),
        ({"enum": []}, "`enum` must be a list"),
        ({"enum": ["a"], "type": "integer"}, "no value of `enum`"),
        ({"enum": ["a"], "maxLength": 3}, "`maxLength` beside constants"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "`oneOf` can only be enforced"),
        ({"oneOf": [{"required": 3}, {"type": "null"}]}, "`required` must be a list of strings"),
        ({"anyOf": {}}, "`anyOf` must be a list"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "`type` is given twice"),
        ({"allOf": [{"properties": {"a": {}}}, {"additionalProperties": False}]}, "`additionalProperties` beside"),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"a": {"type": "null"}}}]}, "described twice"),
        ({"$ref": "https://example.com/schema"}, "`$ref` must lead to a place in the same schema"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#"}, "left-recursive"),
        ({"$ref": "#", "type": "object"}, "nested deeper"),
        (nested(60), "nested deeper"),
        ({"enum": list(range(2000))}, "more than 1000 values"),
        ({"enum": ["a" * 200_000]}, "bytes"),
        ({"enum": ["a" * 60_000]}, "characters"),
    ],
)
def test_refused(schema: Any, says: str) -> None:
    with pytest.raises((SchemaError, GrammarError)) as caught:
        json_schema_to_gbnf(schema)
    assert says in str(caught.value)


def test_the_error_leads_to_the_place() -> None:
    schema = {"$defs": {"b/c": {"items": {"not": {}}}}, "properties": {"a": {"$ref": "#/$defs/b~1c"}}}
    with pytest.raises(SchemaError) as caught:
        json_schema_to_gbnf(schema)
    assert caught.value.path == "/$defs/b~1c/items"


def test_annotations_change_nothing() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "null"}}}
    said = {**plain, "title": "T", "description": "D", "$schema": "x", "x-mine": 1, "default": {}}
    assert json_schema_to_gbnf(plain) == json_schema_to_gbnf(said)


def test_any_object() -> None:
    check_gbnf(json_object_gbnf())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["string", "object", "#", "#/x", "^a$", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GENERAL, *sum(OF_TYPE.values(), ()), "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(schema=json_values)
def test_whatever_is_sent_becomes_a_sound_grammar_or_is_refused(schema: Any) -> None:
    with suppress(SchemaError, GrammarError):
        check_gbnf(json_schema_to_gbnf(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"p{n}": {"type": "string"} for n in range(450)}},
        {"properties": {f"p{n}": {} for n in range(90)}, "additionalProperties": True},
        {"enum": [f"value number {n}" for n in range(1000)]},
        {"enum": ["a" * n for n in range(1, 300)]},
        {"anyOf": [{"properties": {"a": {"maxLength": n}}} for n in range(900)]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a", "title": "x"}] * 900}}},
        {"$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a", "minLength": 1}}}}, "$ref": "#/$defs/a"},
    ],
    ids=range(7),
)
def test_a_large_schema_costs_little(schema: Any) -> None:
    begun_at = time.process_time()
    with suppress(SchemaError, GrammarError):
        json_schema_to_gbnf(schema)
    assert time.process_time() - begun_at < 1.5
