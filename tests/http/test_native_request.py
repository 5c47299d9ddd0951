"""Native requests as they are read: what becomes of each field, and what is refused in which words."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from litestar.exceptions import ClientException
from native_harness import params

from api.native.calls import read_conversation, read_raw_prompt
from api.native.embeddings import read_embedding_batch
from api.native.errors import ToldInStream, native_words
from paddler.desired.sampling import AskedSampling
from paddler.errors import InvalidField
from paddler.payload import check_payload
from paddler.structure.gbnf import check_gbnf, rooted
from paddler.structure.rules import GrammarError
from paddler.wire.agent import Generate, ImagePart, Message, TextPart

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}


def tool(name: str = "look", parameters: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "Looks.", "parameters": parameters}}


def read(**fields: Any) -> Generate:
    return read_conversation(json.dumps(params("hi", **fields)).encode(), 5).payload


def test_a_conversation() -> None:
    payload = read(enable_thinking=False, add_generation_prompt=False, max_tokens=3, tools=[tool()], grammar=None)
    check_payload(payload)
    assert payload.messages == (Message("user", "hi"),)
    assert (payload.max_tokens, payload.add_generation_prompt, payload.enable_thinking) == (3, False, False)
    assert payload.sampling == AskedSampling(seed=5), "a pool's values are for whoever submits it"
    assert [(one.name, one.description, json.loads(one.parameters)) for one in payload.tools] == [
        ("look", "Looks.", SCHEMA)
    ]
    assert read(max_tokens=-1).max_tokens == 0
    assert read().enable_thinking is True


def test_parts_of_a_message() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts = [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": url}}]
    payload = read(conversation_history=[{"role": "user", "content": parts}])
    assert payload.messages is not None
    assert payload.messages[0] == Message("user", "what", parts=(TextPart("what"), ImagePart(PNG)))


@pytest.mark.parametrize(
    ("grammar", "accepted"),
    [
        ({"type": "gbnf", "grammar": 'root ::= "a"', "root": "root"}, 'root ::= "a"'),
        ({"type": "gbnf", "grammar": 'x ::= "a" # root', "root": "x"}, "root ::= x"),
        ({"type": "json_schema", "schema": '{"type": "integer"}'}, "root ::="),
    ],
)
def test_grammars(grammar: dict[str, str], accepted: str) -> None:
    payload = read(grammar=grammar)
    check_payload(payload)
    assert accepted in (payload.grammar or "")
    raw = read_raw_prompt(json.dumps({"max_tokens": 1, "raw_prompt": "x", "grammar": grammar}).encode(), 5)
    assert raw.payload.grammar == payload.grammar
    assert raw.label.is_raw


def test_another_root_leaves_literals_and_comments_alone() -> None:
    text = 'a ::= "root" [root] root # root\nroot ::= "\\"root" b-root\nb-root ::= "x"'
    made = rooted(text, "a")
    check_gbnf(made)
    assert made.startswith('a ::= "root" [root] other-root # root\nother-root ::= "\\"root" b-root\nb-root ::= "x"\n')
    assert made.endswith("\nroot ::= a\n")
    with pytest.raises(GrammarError, match="no name"):
        rooted(text, "a | b")
    with pytest.raises(GrammarError, match="no rule `c`"):
        check_gbnf(rooted(text, "c"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": 1}, "Unknown field `temperature`"),
        ({"max_tokens": None}, "`max_tokens`: expected `int`, got `null`"),
        ({"max_tokens": 2**31}, "`max_tokens`"),
        ({"conversation_history": []}, "`conversation_history`"),
        ({"conversation_history": [{"role": "user", "content": "a", "name": "b"}]}, "conversation_history[0].name"),
        ({"conversation_history": [{"role": "user", "content": [{"type": "video"}]}]}, "content[0].type"),
        ({"grammar": {"type": "regex"}}, "`grammar.type`"),
        ({"grammar": {"type": "gbnf", "grammar": "x"}}, "`grammar.root` is required"),
        ({"tools": [{"type": "web"}]}, "`tools[0].type`"),
        ({"tools": [tool("a b")]}, "`tools[0].function.name` must be"),
        ({"tools": [tool(), tool()]}, "another tool is called 'look' too"),
        (
            {"tools": [tool(parameters=SCHEMA | {"required": ["x"]})]},
            "Required field 'x' not found in properties",
        ),
        ({"tools": [tool(parameters={"type": "object", "not": {}})]}, "tools[0].function.parameters"),
        ({"tools": [tool()], "grammar": {"type": "gbnf", "grammar": 'root ::= "a"', "root": "root"}}, "exclude"),
        ({"tools": [tool()] * 129}, "`tools`"),
        ({"tools": [tool(parameters={"type": "object", "description": "x" * 300_000})]}, "more than 262144"),
    ],
)
def test_what_is_refused_before_anything_is_queued(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read(**fields)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"grammar": {"type": "gbnf", "grammar": "root ::= x", "root": "root"}}, "GrammarSyntaxError"),
        ({"grammar": {"type": "gbnf", "grammar": "root ::= (", "root": "root"}}, "GrammarSyntaxError"),
        ({"grammar": {"type": "json_schema", "schema": "{"}}, "GrammarSyntaxError"),
        ({"grammar": {"type": "json_schema", "schema": '{"not": {}}'}}, "GrammarSyntaxError"),
        ({"grammar": {"type": "json_schema", "schema": "[" * 100_000}}, "GrammarSyntaxError"),
        ({"url": "https://example.org/a.png"}, "ImageDecodingFailed"),
        ({"url": "data:image/png;base64,@@@"}, "ImageDecodingFailed"),
        ({"url": "data:image/png;base64,AAAA"}, "ImageDecodingFailed"),
    ],
)
def test_what_is_told_in_the_stream(fields: dict[str, Any], result: str) -> None:
    if url := fields.get("url"):
        part = {"type": "image_url", "image_url": {"url": url}}
        fields = {"conversation_history": [{"role": "user", "content": [part]}]}
    with pytest.raises(ToldInStream) as told:
        read(**fields)
    assert told.value.result == result
    assert "messages" not in told.value.message


def test_a_batch_of_embeddings() -> None:
    documents = [{"id": f"d{number}", "content": "x"} for number in range(600)]
    batch = read_embedding_batch(json.dumps({"input_batch": documents, "normalization_method": "None"}).encode())
    assert [len(one.inputs) for one in batch.tickets(0, is_one=False)] == [200, 200, 200]
    assert [one.first for one in batch.tickets(4, is_one=False)] == [0, 150, 300, 450]
    assert {one.normalization for one in batch.tickets(1, is_one=False)} == {"none"}
    assert [len(one.inputs) for one in batch.tickets(4, is_one=True)] == [600]
    method = {"RmsNorm": {"epsilon": 0.5}}
    batch = read_embedding_batch(json.dumps({"input_batch": documents[:1], "normalization_method": method}).encode())
    [ticket] = batch.tickets(8, is_one=False)
    assert (ticket.normalization, ticket.rms_epsilon) == ("rms_norm", 0.5)
    for wrong in (b'{"input_batch": []}', b'{"input_batch": [{"id": "a", "content": ""}]}', b'{"x": 1}'):
        with pytest.raises(InvalidField):
            read_embedding_batch(wrong)
    with pytest.raises(ClientException):
        read_embedding_batch(b"\xff")


def test_words_name_the_fields_of_the_protocol() -> None:
    assert native_words("`messages[0].content[1]`: no") == "`conversation_history[0].content[1]`: no"
    assert native_words("the prompt has 900 tokens") == "the prompt has 900 tokens"
    assert native_words("`input[3]` has") == "`input_batch[3]` has"
