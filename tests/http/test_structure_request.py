"""What a request says about the form of its answer: the grammar it becomes, or the field that is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.openai.chat import read_chat_call
from paddler.errors import InvalidField
from paddler.payload import check_payload
from paddler.structure.json_schema import json_object_gbnf, json_schema_to_gbnf

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def grammar_of(**fields: Any) -> str | None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]} | fields
    payload = read_chat_call(json.dumps(body).encode(), 7).payload
    check_payload(payload)
    return payload.grammar


def named(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"grammar": 'root ::= "a"'}, 'root ::= "a"'),
        ({"grammar": 'root ::= "a"', "response_format": {"type": "text"}}, 'root ::= "a"'),
        ({"json_schema": SCHEMA}, json_schema_to_gbnf(SCHEMA)),
        ({"json_schema": {}}, json_schema_to_gbnf({})),
        ({"response_format": {"type": "json_object"}}, json_object_gbnf()),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, json_schema_to_gbnf(SCHEMA)),
        ({"response_format": named(SCHEMA)}, json_schema_to_gbnf(SCHEMA)),
        ({"response_format": named(SCHEMA, strict=True, description="d")}, json_schema_to_gbnf(SCHEMA)),
        ({"response_format": named(SCHEMA, strict=False)}, json_schema_to_gbnf(SCHEMA)),
        ({"response_format": named(None)}, json_schema_to_gbnf({})),
    ],
)
def test_what_it_becomes(fields: dict[str, Any], grammar: str | None) -> None:
    assert grammar_of(**fields) == grammar


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"grammar": "root ::= x"}, "grammar", "it has no rule `x`"),
        ({"grammar": ""}, "grammar", "length >= 1"),
        ({"grammar": 7}, "grammar", "expected `str | null`"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar", "exclude each other"),
        ({"json_schema": {}, "response_format": {"type": "json_object"}}, "json_schema", "exclude each other"),
        ({"json_schema": {"not": {}}}, "json_schema", "`not` cannot be enforced; leave it out (at its top)"),
        ({"json_schema": "x"}, "json_schema", "a schema must be an object"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid enum value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "required"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", "name"),
        ({"response_format": {**named({}), "type": "text"}}, "response_format.type", "needs type `json_schema`"),
        ({"response_format": {**named({}), "schema": {}}}, "response_format.schema", "`json_schema.schema`"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema", "goes with `json_object`"),
        ({"response_format": named({"items": {"uniqueItems": True, "type": "array"}}, strict=False)},
         "response_format.json_schema.schema", "`uniqueItems` cannot be enforced; leave it out (at /items)"),
        ({"response_format": {"type": "json_object", "schema": {"type": 3}}}, "response_format.schema", "`type` must"),
    ],
)  # fmt: skip
def test_what_is_refused(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidField) as caught:
        grammar_of(**fields)
    assert caught.value.param == param
    assert says in caught.value.message
