"""Every field of a chat request: what it becomes, or how it is refused. Pure: bytes in, payload or error out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.exceptions import ClientException
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from api.openai.chat import ChatCall, read_chat_call
from api.openai.schema import NOT_YET, ChatRequest
from paddler.desired.sampling import filled, with_defaults
from paddler.errors import InvalidField
from paddler.payload import check_payload
from paddler.wire.agent import Message, Sampling, decode_payload, encode_payload

SEED = 7
ROOT = Path(__file__).resolve().parents[2]
HELLO = {"role": "user", "content": "hello"}
BASE: dict[str, Any] = {"model": "m", "messages": [HELLO]}


def read(**fields: Any) -> ChatCall:
    return read_chat_call(json.dumps(BASE | fields).encode(), SEED)


def refusal(**fields: Any) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        read(**fields)
    return caught.value


def messages(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(turns)}


def test_a_plain_request_keeps_the_wires_defaults() -> None:
    call = read()
    assert call == ChatCall("m", call.payload, stream=False, include_usage=False)
    assert call.payload.messages == (Message("user", "hello"),)
    assert with_defaults(call.payload.sampling, Sampling()) == Sampling(seed=SEED)
    assert call.payload.max_tokens is None
    assert call.payload.stop == ()
    payload = filled(call.payload, Sampling())
    assert decode_payload(encode_payload(payload)) == payload


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("temperature", 0, "temperature", 0.0),
        ("temperature", 2, "temperature", 2.0),
        ("top_p", 0.5, "top_p", 0.5),
        ("presence_penalty", -2, "penalty_presence", -2.0),
        ("frequency_penalty", 2, "penalty_frequency", 2.0),
        ("top_k", 40, "top_k", 40),
        ("top_k", 0, "top_k", 0),
        ("top_k", -1, "top_k", 0),
        ("min_p", 0, "min_p", 0.0),
        ("repeat_penalty", 1, "penalty_repeat", 1.0),
        ("repeat_last_n", 64, "penalty_last_n", 64),
        ("seed", 42, "seed", 42),
        ("seed", 2**32 + 5, "seed", 5),
        ("seed", -1, "seed", 2**32 - 1),
        ("seed", -(2**63), "seed", 0),
        ("seed", 2**63 - 1, "seed", 2**32 - 1),
    ],
)
def test_sampling(field: str, value: float, attribute: str, expected: float) -> None:
    sampling = with_defaults(read(**{field: value}).payload.sampling, Sampling())
    assert getattr(sampling, attribute) == expected
    others = msgspec.structs.asdict(sampling) | {attribute: None}
    assert others == msgspec.structs.asdict(Sampling(seed=SEED)) | {attribute: None}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 5),
    ],
)
def test_max_tokens(fields: dict[str, int], expected: int) -> None:
    assert read(**fields).payload.max_tokens == expected


@pytest.mark.parametrize(("value", "expected"), [("a", ("a",)), (["a", "b", "a"], ("a", "b")), ([], ()), (None, ())])
def test_stop(value: Any, expected: tuple[str, ...]) -> None:
    assert read(stop=value).payload.stop == expected


def test_streaming() -> None:
    assert read(stream=True).stream
    assert not read(stream=True).include_usage
    assert read(background=True).is_background
    assert read(prompt_cache_key="k").cache_key == "k"
    assert read(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}).include_usage


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 20}, 20), ({"logprobs": False}, None), ({}, None)],
)
def test_logprobs(fields: dict[str, Any], expected: int | None) -> None:
    assert read(**fields).payload.logprobs == expected


def test_roles_and_text_parts() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    call = read(
        **messages(
            {"role": "developer", "content": "be brief"},
            {"role": "system", "content": ""},
            {"role": "user", "content": parts, "name": "ada"},
            {"role": "assistant", "content": "fine", "refusal": None, "tool_calls": None, "annotations": []},
        )
    )
    assert call.payload.messages == (
        Message("system", "be brief"),
        Message("system", ""),
        Message("user", "one\ntwo", "ada"),
        Message("assistant", "fine"),
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "ada"),
        ("metadata", {"k": "v"}),
        ("service_tier", "auto"),
        ("store", True),
        ("n", 1),
        ("logprobs", False),
        ("top_logprobs", 0),
        ("logit_bias", {}),
        ("response_format", {"type": "text"}),
        ("modalities", ["text"]),
        ("tools", []),
        ("tool_choice", "auto"),
        ("parallel_tool_calls", True),
        ("stream", False),
    ],
)
def test_what_asks_for_nothing_is_accepted(field: str, value: Any) -> None:
    assert read(**{field: value}) == read()


def test_what_has_no_effect_is_in_the_document() -> None:
    """In the schema they stand below a comment of their own, up to the next empty line."""
    source = (ROOT / "api/openai/schema.py").read_text()
    fields = {
        line.split(":")[0].strip()
        for part in source.split("    # Accepted without effect.\n")[1:]
        for line in part.split("\n\n")[0].splitlines()
    }
    document = (ROOT / "docs/sampling.md").read_text()
    [told] = re.findall(r"^Four fields.*?have no effect:(.*?)\. So have", document, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([a-z_]+)`", told)) == fields


@pytest.mark.parametrize("field", [name for name in ChatRequest.__struct_fields__ if name not in ("model", "messages")])
def test_null_means_absent(field: str) -> None:
    assert read(**{field: None}) == read()


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("tools", [{"type": "custom", "custom": {}}], "tools[0].type"),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}, "tool_choice.type"),
        ("modalities", ["text", "audio"], "modalities[1]"),
        ("audio", {"voice": "x"}, "audio"),
        ("reasoning_effort", "low", "reasoning_effort"),
        ("prompt_cache_options", {}, "prompt_cache_options"),
        ("web_search_options", {}, "web_search_options"),
        ("stream_options", {"include_obfuscation": True}, "stream_options.include_obfuscation"),
        ("samplers", ["top_k"], "samplers"),
    ],
)
def test_what_comes_later_is_refused_by_name(field: str, value: Any, param: str) -> None:
    error = refusal(**{field: value, "stream": True})
    assert error.param == param
    assert "not supported yet; leave it out" in error.message


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        ({"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}, "messages[0].tool_calls[0].type"),
        ({"role": "assistant", "function_call": {}}, "messages[0].function_call"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[0].content[0].type"),
    ],
)
def test_turns_that_come_later_are_refused_by_name(turn: dict[str, Any], param: str) -> None:
    error = refusal(**messages(turn))
    assert error.param == param
    assert "not supported yet; leave it out" in error.message


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"model": ""}, "model", "length >= 1"),
        ({"model": 3}, "model", "got `int`"),
        ({"messages": []}, "messages", "length >= 1"),
        ({"messages": "hello"}, "messages", "expected `array`"),
        ({"temperature": 2.1}, "temperature", "<= 2"),
        ({"temperature": -0.1}, "temperature", ">= 0"),
        ({"temperature": "hot"}, "temperature", "got `str`"),
        ({"temperature": True}, "temperature", "got `bool`"),
        ({"top_p": 1.5}, "top_p", "<= 1"),
        ({"min_p": -1}, "min_p", ">= 0"),
        ({"top_k": -2}, "top_k", ">= -1"),
        ({"top_k": 1.5}, "top_k", "got `float`"),
        ({"presence_penalty": 3}, "presence_penalty", "<= 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", ">= -2"),
        ({"repeat_penalty": 0}, "repeat_penalty", ">= 0.01"),
        ({"repeat_last_n": -2}, "repeat_last_n", ">= -1"),
        ({"seed": 2**63}, "seed", "9223372036854775807"),
        ({"seed": 10**30}, "seed", "<="),
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"max_completion_tokens": 2**31}, "max_completion_tokens", "<="),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "differ"),
        ({"stop": ""}, "stop", "length >= 1"),
        ({"stop": ["a", ""]}, "stop[1]", "length >= 1"),
        ({"stop": ["x"] * 17}, "stop", "length <= 16"),
        ({"stop": "x" * 5000}, "stop", "length <= 4096"),
        ({"stop": 3}, "stop", "got `int`"),
        ({"stream": "yes"}, "stream", "got `str`"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs `stream`"),
        ({"stream": True, "stream_options": {"usage": 1}}, "stream_options.usage", "Unknown field"),
        ({"top_logprobs": 3}, "top_logprobs", "needs `logprobs`"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "<= 20"),
        ({"n": 0}, "n", ">= 1"),
        ({"n": 9}, "n", "<= 8"),
        ({"n": 2, "background": True}, "n", "together with `background`"),
        ({"prompt_cache_key": "k" * 1025}, "prompt_cache_key", "length <= 1024"),
        ({"background": "yes"}, "background", "got `str`"),
        ({"metadata": {"k": 1}}, "metadata[...]", "got `int`"),
        ({"temprature": 1}, "temprature", "did you mean `temperature`?"),
        ({"wholly_unknown": 1}, "wholly_unknown", "Unknown field"),
        ({"x" * 1000: 1}, "x" * 60 + "…", "Unknown field"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], param: str, says: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert says in error.message
    assert param in error.message


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        ({"content": "x"}, "messages[0].role"),
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "assistant", "content": None}, "messages[0].content"),
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}, "messages[0].content[0].y"),
        ({"role": "user", "content": "x", "mood": 1}, "messages[0].mood"),
        ("hello", "messages[0]"),
    ],
)
def test_mistakes_within_a_turn_are_named(turn: Any, param: str) -> None:
    error = refusal(**messages(turn))
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_required_fields(missing: str) -> None:
    body = json.dumps({name: value for name, value in BASE.items() if name != missing})
    with pytest.raises(InvalidField, match=f"`{missing}` is required") as caught:
        read_chat_call(body.encode(), SEED)
    assert caught.value.param == missing


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"\xff":1}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\udc00"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}]} {}',
        b"\xef\xbb\xbf{}",
        b'{"image_url":' * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":' + b"[" * 5_000_000,
    ],
    ids=lambda body: repr(body[:60]),
)
def test_bytes_that_are_no_request(body: bytes) -> None:
    with pytest.raises((ClientException, InvalidField)) as caught:
        read_chat_call(body, SEED)
    assert isinstance(caught.value, InvalidField) or caught.value.status_code == 400


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"x"'])
def test_json_that_is_no_object(body: bytes) -> None:
    with pytest.raises(InvalidField, match="must be a JSON object"):
        read_chat_call(body, SEED)


def test_every_field_of_the_official_client_is_known() -> None:
    official = CompletionCreateParamsNonStreaming.__annotations__ | CompletionCreateParamsStreaming.__annotations__
    ours = {*ChatRequest.__struct_encode_fields__, *NOT_YET}
    assert {*official} - ours == set()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from([*ChatRequest.__struct_fields__, *NOT_YET, "other"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_json_gives_a_payload_or_a_named_field(fields: dict[str, Any]) -> None:
    try:
        call = read(**fields)
    except InvalidField as error:
        named = error.param
    else:
        named = "nothing"
        check_payload(call.payload)
        sent = filled(call.payload, Sampling())
        assert decode_payload(encode_payload(sent)) == sent
    assert named
