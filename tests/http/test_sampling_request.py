"""The sampling fields of llama.cpp's server in a chat request: what they become, or how they are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.openai.chat import ChatCall, read_chat_call
from paddler.desired.sampling import filled
from paddler.errors import InvalidField
from paddler.payload import check_payload
from paddler.wire.agent import Generate, Sampling, decode_payload, encode_payload

SEED = 7


def read(**fields: Any) -> ChatCall:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    return read_chat_call(json.dumps(body | fields).encode(), SEED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ignore_eos", True),
        ("min_keep", 3),
        ("typical_p", 0.5),
        ("top_n_sigma", 1.5),
        ("top_n_sigma", -1),
        ("xtc_probability", 0.5),
        ("xtc_threshold", 0.2),
        ("dynatemp_range", 0.5),
        ("dynatemp_exponent", 2),
        ("dry_multiplier", 0.8),
        ("dry_base", 2),
        ("dry_allowed_length", 4),
        ("dry_penalty_last_n", -1),
        ("mirostat", 2),
        ("mirostat_tau", 3),
        ("mirostat_eta", 0.2),
    ],
)
def test_fields_of_llama_cpp_keep_their_names(field: str, value: float) -> None:
    payload = filled(read(**{field: value}).payload, Sampling())
    assert isinstance(payload, Generate)
    assert payload.sampling == msgspec.structs.replace(Sampling(seed=SEED), **{field: value})
    check_payload(payload)
    assert decode_payload(encode_payload(payload)) == payload


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"15043": -100, "7": 2.5}, ((15043, -100.0), (7, 2.5))),
        ({"Hello": -1, " 7": 1}, (("Hello", -1.0), (" 7", 1.0))),
        ([[15043, False], ["Hello", -1]], ((15043, -100.0), ("Hello", -1.0))),
        ([], ()),
        ({}, ()),
    ],
)
def test_logit_bias_in_the_forms_of_openai_and_llama_cpp(value: Any, expected: Any) -> None:
    payload = filled(read(logit_bias=value).payload, Sampling())
    assert isinstance(payload, Generate)
    assert payload.sampling.logit_bias == expected
    check_payload(payload)
    assert decode_payload(encode_payload(payload)) == payload


def test_dry_sequence_breakers() -> None:
    assert read(dry_sequence_breakers=["a", "b"]).payload.sampling.dry_sequence_breakers == ("a", "b")
    assert read(dry_sequence_breakers=[]).payload.sampling.dry_sequence_breakers == ()
    assert read(dry_sequence_breakers=["é" * 40]).payload.sampling.dry_sequence_breakers == ("é" * 40,)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"n_predict": 5}, 5), ({"n_predict": -1}, None), ({"n_predict": 0}, 0), ({"n_predict": 5, "max_tokens": 5}, 5)],
)
def test_n_predict_is_another_name_of_max_tokens(fields: dict[str, int], expected: int | None) -> None:
    assert read(**fields).payload.max_tokens == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"5": True}}, "logit_bias"),
        ({"logit_bias": {"5": "x"}}, "logit_bias"),
        ({"logit_bias": {"": 1}}, "logit_bias"),
        ({"logit_bias": [[5]]}, "logit_bias"),
        ({"logit_bias": [[-1, 1]]}, "logit_bias"),
        ({"logit_bias": [[1, -101]]}, "logit_bias"),
        ({"logit_bias": {"x" * 257: 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"min_keep": -1}, "min_keep"),
        ({"typical_p": 1.1}, "typical_p"),
        ({"top_n_sigma": 1001}, "top_n_sigma"),
        ({"xtc_probability": -0.1}, "xtc_probability"),
        ({"xtc_threshold": 1.1}, "xtc_threshold"),
        ({"dynatemp_range": -1}, "dynatemp_range"),
        ({"dynatemp_exponent": 101}, "dynatemp_exponent"),
        ({"dry_multiplier": -1}, "dry_multiplier"),
        ({"dry_base": 0.9}, "dry_base"),
        ({"dry_allowed_length": -1}, "dry_allowed_length"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n"),
        ({"dry_sequence_breakers": [""]}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["x"] * 17}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["x" * 41]}, "dry_sequence_breakers"),
        ({"mirostat": 3}, "mirostat"),
        ({"mirostat": 1.5}, "mirostat"),
        ({"mirostat_tau": -1}, "mirostat_tau"),
        ({"mirostat_eta": 1.1}, "mirostat_eta"),
        ({"n_predict": -2}, "n_predict"),
        ({"n_predict": 3, "max_tokens": 4}, "n_predict"),
        ({"n_predict": -1, "max_tokens": 4}, "n_predict"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read(**fields)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert param in caught.value.message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["top_n_sigma", "dry_base", "mirostat_tau", "logit_bias"])
def test_numbers_that_are_none_are_refused(field: str, number: str) -> None:
    value = f'{{"5": {number}}}' if field == "logit_bias" else number
    body = f'{{"model":"m","messages":[{{"role":"user","content":"x"}}],"{field}":{value}}}'
    with pytest.raises(Exception, match=r"field|JSON|range|<="):
        read_chat_call(body.encode(), SEED)
