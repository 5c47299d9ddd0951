"""What llama.cpp makes of grammars, asked with the real vocabulary: which texts of a schema are let through whole."""

from __future__ import annotations

import datetime
import json
import random
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddler.errors import EngineFailed, InvalidField
from paddler.payload import check_grammar
from paddler.structure.json_schema import json_object_gbnf, json_schema_to_gbnf
from workers.agent.grammar import Constraint
from workers.agent.llama import Model


def matches(model: Model, gbnf: str, text: str) -> bool:
    """Whether the whole text follows the grammar, and may end there."""
    constraint = Constraint(gbnf, model)
    try:
        constraint.accept(model.tokenize(text).tolist())
    except EngineFailed:
        return False
    finally:
        is_complete = constraint.allows(model.eos)
        constraint.close()
    return is_complete


CASES: list[tuple[Any, list[str], list[str]]] = [
    ({"type": "string"}, ['"a"', '"\\u00e9\\n"', '""'], ['"a\nb"', '"\\x"', '"\\ud800"', "a", '"a" ']),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"\\"é☃"'], ['"a"', '"abcd"']),
    ({"type": "integer"}, ["0", "-12", "120"], ["01", "1.0", "1e3", "+1", "-"]),
    ({"type": "number"}, ["0", "-1.50", "2e-7"], [".5", "1.", "00.1"]),
    ({"type": ["boolean", "null"]}, ["true", "false", "null"], ["0", '"true"']),
    ({"const": {"a": [1, "x"]}}, ['{"a": [1, "x"]}'], ['{"a":[1,"x"]}', "{}"]),
    ({"enum": ["red", "re", "redder", 'a"b', "\\"]}, ['"red"', '"re"', '"redder"', '"a\\"b"', '"\\\\"'], ['"r"']),
    ({"enum": [1, "1", None], "type": "integer"}, ["1"], ['"1"', "null"]),
    (
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "required": ["b"]},
        ['{"b": null}', '{"a":null,"b":null}', '{"b":null, "c":null}', '{"a":null,"b":null,"c":null}'],
        ["{}", '{"a":null}', '{"c":null,"b":null}', '{"b":null,}', '{,"b":null}', '{"b":null,"b":null}', '{"b":1}'],
    ),
    (
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
        ["{}", '{"a":null}', '{"b":null}', '{"a":null,"b":null}'],
        ['{"b":null,"a":null}', '{"a":null,}'],
    ),
    (
        {"properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "integer"}},
        ["{}", '{"ab":null}', '{"ab":null,"abc":1,"a":2,"":3}', '{"b":1}'],
        ['{"ab":1}', '{"x":1,"ab":2}', '{"x":null}', '{"x":1,"a\\u0062":2}'],
    ),
    ({"type": "object", "required": ["a"]}, ['{"a":1}', '{"a":1,"b":[]}'], ["{}", '{"b":1}']),
    ({"type": "object", "additionalProperties": False}, ["{}", "{ }"], ['{"a":1}']),
    ({"type": "object"}, ["{}", '{"a": {"b": [1, 2.5, null]}}'], ["[]", '{"a"}']),
    (True, ["{}", "[]", "1", '"x"', "null"], ["", "x"]),
    ({"items": {"type": "integer"}}, ["[]", "[1]", "[1, 2]"], ["[1,]", "[null]", "{}"]),
    ({"items": {"const": 1}, "minItems": 2, "maxItems": 3}, ["[1,1]", "[1,1,1]"], ["[]", "[1]", "[1,1,1,1]"]),
    ({"items": {"type": "null"}, "minItems": 1}, ["[null]", "[null,null,null]"], ["[]"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"type": "array", "maxItems": 1}, ["[]", "[1]"], ["[1,2]"]),
    (
        {"prefixItems": [{"type": "null"}, {"const": 1}], "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
        ["[null]", "[null, 1]", "[null,1,true]", "[null,1,true,false]"],
        ["[]", "[1]", "[null,true]", "[null,1,true,false,true]"],
    ),
    ({"prefixItems": [{"type": "null"}], "items": False}, ["[]", "[null]"], ["[null,null]"]),
    ({"anyOf": [{"type": "null"}, {"enum": ["a"]}]}, ["null", '"a"'], ['"b"']),
    (
        {"type": "object", "properties": {"a": {"type": "null"}}, "anyOf": [{"required": ["a"]}]},
        ['{"a":null}'],
        ["{}"],
    ),
    (
        {"oneOf": [{"properties": {"k": {"const": k}}, "required": ["k"], "type": "object"} for k in ("x", "y")]},
        ['{"k":"x"}', '{"k":"y"}'],
        ['{"k":"z"}', "{}"],
    ),
    (
        {"allOf": [{"properties": {name: {"type": "null"}}, "required": [name]} for name in ("a", "b")]},
        ['{"a":null,"b":null}'],
        ['{"a":null}', '{"b":null}'],
    ),
    (
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"in": {"$ref": "#/$defs/tree"}}}}},
        ["{}", '{"in":{}}', '{"in":{"in":{}}}'],
        ["[]", '{"in":1}'],
    ),
    ({"type": "string", "pattern": "b+"}, ['"abc"', '"bb"'], ['"ac"']),
    ({"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"'], ['"xay"']),
    ({"type": "string", "pattern": '^[^\\d"]{2}\\.(?:x|y)?$'}, ['"ab."', '"é\\\\.y"'], ['"1b."', '"a\\"."', '"ab"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-29T23:59:59Z"', '"2023-12-31T00:00:00.5+02:00"'], ['"2"']),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES, ids=[json.dumps(schema)[:60] for schema, _, _ in CASES])
def test_a_schema_lets_through_what_is_valid_and_nothing_else(
    model: Model, schema: Any, valid: list[str], invalid: list[str]
) -> None:
    gbnf = json_schema_to_gbnf(schema)
    assert [text for text in valid if not matches(model, gbnf, text)] == []
    assert [text for text in invalid if matches(model, gbnf, text)] == []


INTEGER_BOUNDS = [
    (0, 0),
    (0, 9),
    (-5, 5),
    (7, 130),
    (95, 1005),
    (-120, -15),
    (None, -3),
    (None, 42),
    (-42, None),
    (0, None),
]


@pytest.mark.parametrize(("low", "high"), INTEGER_BOUNDS)
def test_integers_between_bounds(model: Model, low: int | None, high: int | None) -> None:
    bounds = {name: value for name, value in (("minimum", low), ("maximum", high)) if value is not None}
    gbnf = json_schema_to_gbnf({"type": "integer", **bounds})
    rng = random.Random(1)
    near = [bound + step for bound in (low, high) if bound is not None for step in (-11, -10, -1, 0, 1, 10, 11)]
    for number in {*near, *range(-3, 4), *(rng.randint(-1500, 1500) for _ in range(60))}:
        fits = (low is None or low <= number) and (high is None or number <= high)
        assert matches(model, gbnf, str(number)) == fits, number


DECIMAL_BOUNDS = [
    "0 1",
    "0.25 0.75",
    "-1 1",
    "1.5 2.25",
    "-2.5 -0.125",
    "0.1 0.1",
    "3 None",
    "None -0.5",
    "-0.05 12.3",
    "2.09 2.1",
]


@pytest.mark.parametrize("bounds", DECIMAL_BOUNDS)
@pytest.mark.parametrize("kinds", ["minimum maximum", "exclusiveMinimum exclusiveMaximum"])
def test_numbers_between_bounds(model: Model, bounds: str, kinds: str) -> None:
    low, high = (None if bound == "None" else Decimal(bound) for bound in bounds.split())
    is_open = kinds.startswith("exclusive")
    if is_open and low == high:
        return
    said = {kind: float(bound) for kind, bound in zip(kinds.split(), (low, high), strict=True) if bound is not None}
    gbnf = json_schema_to_gbnf({"type": "number", **said})
    rng = random.Random(2)
    steps = [Decimal(step) for step in ("0", "0.001", "-0.001", "0.01", "-0.01", "0.1", "-0.1", "1", "-1")]
    near = [bound + step for bound in (low, high) if bound is not None for step in steps]
    for number in {*near, *(Decimal(rng.randint(-4000, 14000)) / rng.choice((1, 10, 100, 1000)) for _ in range(60))}:
        fits = (low is None or low < number or (low == number and not is_open)) and (
            high is None or number < high or (number == high and not is_open)
        )
        text = f"{number:f}"
        if "." in text and fits and is_open:
            text = text.rstrip("0").rstrip(".")  # Just above an excluded bound the last digit is none of 0.
        assert matches(model, gbnf, text) == fits, text


PATTERNS = [
    r"^[A-Z]{2,4}-[0-9]{3}$", r"^\d{3}(-\d{4})?$", r"^(a|bc)+$", r"^\w+@\w+\.com$", r"^[^a-c]*$", "^$", "x",
    r"^\S+\s\S+$", r"^a.c$", r"^(?:ab)?c{2}$", r"^[\w.-]+$", r"^é[é-ü]$",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_those_of_re(model: Model, pattern: str) -> None:
    gbnf = json_schema_to_gbnf({"type": "string", "pattern": pattern})
    texts = [
        *("", "a", "x", "ab", "bc", "abcbc", "AB-123", "ABCDE-123", "123", "123-4567", "1234567", "me@here.com", "a b"),
        *("abc", "a\nc", 'a"c', "cc", "abcc", "é", "éé", "éa", "a.b-c_d", "défi", "a  b", "\\", "axb"),
    ]
    for text in texts:
        assert matches(model, gbnf, json.dumps(text, ensure_ascii=False)) == bool(re.search(pattern, text, re.ASCII)), (
            text
        )


def test_dates_are_those_of_the_calendar(model: Model) -> None:
    gbnf = json_schema_to_gbnf({"type": "string", "format": "date"})
    rng = random.Random(3)
    for _ in range(150):
        text = f"{rng.choice((1900, 2000, 2023, 2024, 2100))}-{rng.randint(1, 12):02}-{rng.randint(27, 32):02}"
        try:
            is_date = bool(datetime.date.fromisoformat(text))
        except ValueError:
            is_date = False
        assert matches(model, gbnf, f'"{text}"') == is_date, text


def test_a_control_token_is_no_text(model: Model) -> None:
    """llama.cpp takes its name for its text: within a string `<|im_start|>` would fit, and the client get nothing."""
    constraint = Constraint(json_schema_to_gbnf({"type": "string"}), model)
    constraint.accept(model.tokenize('"a').tolist())
    assert model.silent
    assert not any(map(constraint.allows, model.silent))
    logits = np.zeros(model.vocab_size, np.float32)
    constraint.mask(logits, min_p=0)
    assert np.isinf(logits[list(model.silent)]).all()
    assert np.isfinite(logits).sum() > 1000


@pytest.mark.parametrize("min_p", [1.0, 0.05])
def test_likely_tokens_alone_give_the_same_as_all(model: Model, min_p: float) -> None:
    """What `mask` does not look at is less than `min_p` times as likely as the best it keeps."""
    constraint = Constraint(json_object_gbnf(), model)
    rng = np.random.default_rng(5)
    constraint.accept(model.tokenize('{"a').tolist())
    for scale in (1.0, 4.0, 12.0):
        logits = rng.normal(0, scale, model.vocab_size).astype(np.float32)
        every, likely = logits.copy(), logits.copy()
        constraint.mask(every, min_p=0)
        constraint.mask(likely, min_p=min_p)
        counts = every >= every.max() + np.log(min_p)
        assert (likely[counts] == every[counts]).all()


def test_bytes_that_are_no_character_are_no_text(model: Model) -> None:
    """llama.cpp takes whatever follows the first byte of four for one character; the client would get four."""
    by_piece = {piece: token for token, piece in enumerate(model.pieces) if len(piece) == 1}
    constraint = Constraint(json_schema_to_gbnf({"type": "string", "maxLength": 1}), model)
    constraint.accept(model.tokenize('"').tolist())
    assert all(constraint.allows(by_piece[byte]) for byte in (b"\xf0", b"\xc3", b"a"))
    assert not any(constraint.allows(by_piece[byte]) for byte in (b"\xff", b"\xc0", b"\x80") if byte in by_piece)
    logits = np.zeros(model.vocab_size, np.float32)
    constraint.mask(logits, min_p=0)
    assert np.isinf(logits[model.broken]).all()
    constraint.accept([by_piece[b"\xf0"]])
    assert constraint.allows(by_piece[b"\x9f"])
    assert not constraint.allows(by_piece[b"\x80"])
    assert not constraint.allows(model.tokenize('"')[0])
    logits = np.zeros(model.vocab_size, np.float32)
    constraint.mask(logits, min_p=0)
    allowed = [token for token in range(model.vocab_size) if np.isfinite(logits[token])]
    assert {model.pieces[token][0] for token in allowed} == {*range(0x90, 0xC0)}
    constraint.accept([by_piece[bytes([byte])] for byte in "\U0001f98a".encode()[1:]])
    assert constraint.allows(model.tokenize('"')[0])
    assert not constraint.allows(by_piece[b"a"])


def test_what_llama_cpp_refuses_is_the_requests_fault(model: Model) -> None:
    with pytest.raises(InvalidField) as caught:
        Constraint("root ::= nothing", model)
    assert caught.value.param == "grammar"


def test_tokens_that_do_not_follow_are_an_error(model: Model) -> None:
    """Not the end of the process, which is what llama.cpp makes of them."""
    constraint = Constraint('root ::= "ab"', model)
    with pytest.raises(EngineFailed, match="does not follow"):
        constraint.accept([*model.tokenize("ab").tolist(), *model.tokenize("c").tolist()])
    with pytest.raises(EngineFailed):
        Constraint('root ::= "ab"', model).accept([model.eos])


ITEMS = st.sampled_from(['"a"', '"ab"', "[a-c]", "[^a]", ".", '""', "root", "x", "y", "(x | y)", '("a" | )', "(x y)"])
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}"])
SEQUENCES = st.lists(st.tuples(ITEMS, REPEATS).map("".join), max_size=4).map(" ".join)
RULES = st.lists(SEQUENCES, min_size=1, max_size=3).map(" | ".join)


@settings(max_examples=300)
@given(root=RULES, x=RULES, y=RULES)
def test_no_grammar_that_is_let_through_ends_the_process(model: Model, root: str, x: str, y: str) -> None:
    gbnf = f"root ::= {root}\nx ::= {x}\ny ::= {y}"
    try:
        check_grammar(gbnf, "grammar")
        constraint = Constraint(gbnf, model)
    except InvalidField:
        return
    for text in ("a", "b", "ab"):
        [token] = model.tokenize(text).tolist()
        if constraint.allows(token):
            constraint.accept([token])
    constraint.close()
