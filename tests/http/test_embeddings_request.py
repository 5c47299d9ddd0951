"""From a body of `/v1/embeddings` to tickets, and from vectors to the answer; pure."""

from __future__ import annotations

import base64
import json
from struct import pack
from typing import Any

import pytest
from litestar.exceptions import ClientException
from openai.types import CreateEmbeddingResponse

from api.openai.embeddings import MAX_INPUTS, EmbeddingCall, read_embedding_call
from api.openai.label import EmbeddingLabel
from paddler.errors import EngineFailed, InvalidField
from paddler.wire.agent import Embed
from paddler.wire.balancer import Usage


def read(**fields: Any) -> EmbeddingCall:
    return read_embedding_call(json.dumps({"model": "m", "input": "hello", **fields}).encode())


def test_what_is_accepted() -> None:
    assert read() == EmbeddingCall("m", ("hello",), False, None, is_single=True)
    assert read(input=["a", "b"], encoding_format="base64", dimensions=4, user="me", model="n") == EmbeddingCall(
        "n", ("a", "b"), True, 4
    )
    assert read(encoding_format=None, dimensions=None, user=None) == read(encoding_format="float")
    assert len(read(input=["x"] * MAX_INPUTS).texts) == MAX_INPUTS


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [1, 2, 3]}, "input[0]"),
        ({"input": ["a", [1, 2]]}, "input[1]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": ["a", True]}, "input[1]"),
        ({"input": ["a", {"text": "b"}]}, "input[1]"),
        ({"input": ["x"] * (MAX_INPUTS + 1)}, "input"),
        ({"model": ""}, "model"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"user": 7}, "user"),
        ({"background": True}, "background"),
        ({"stream": True}, "stream"),
        ({"embd_normalize": 2}, "embd_normalize"),
        ({"normalization": "max"}, "normalization"),
        ({"normalization": "rms_norm", "rms_epsilon": 2}, "rms_epsilon"),
        ({"rms_epsilon": 1e-5}, "rms_epsilon"),
        ({"rms_epsilon": 1e-5, "normalization": "l2"}, "rms_epsilon"),
    ],
)
def test_what_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read(**fields)
    assert refused.value.param == param
    assert param in refused.value.message


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2, 3]]])
def test_who_sends_tokens_is_told_how_to_send_text(tokens: list[Any]) -> None:
    """LangChain does, unless it is told not to: docs/langchain.md."""
    with pytest.raises(InvalidField, match=r"tokens are not supported.*`check_embedding_ctx_length=False`"):
        read(input=tokens)


def test_normalization_reaches_every_ticket() -> None:
    call = read(input=["a"] * 40, normalization="rms_norm", rms_epsilon=0.5)
    tickets = call.tickets(2, is_one=False)
    assert [(ticket.normalization, ticket.rms_epsilon) for ticket in tickets] == [("rms_norm", 0.5)] * 2
    assert read(normalization="none").tickets(1, is_one=False)[0].normalization == "none"
    assert read(normalization=None, rms_epsilon=None) == read(normalization="l2")


def test_token_lists_are_told_what_to_send_instead() -> None:
    with pytest.raises(InvalidField, match="only text"):
        read(input=[[1, 2], [3]])


def test_what_is_no_json() -> None:
    with pytest.raises(ClientException):
        read_embedding_call(b"{")


def test_a_text_alone_has_no_number() -> None:
    assert [ticket.name_of(0) for ticket in read().tickets(4, is_one=False)] == ["input"]
    assert [ticket.name_of(0) for ticket in read(input=["a"]).tickets(4, is_one=False)] == ["input[0]"]


def test_tickets_are_even_and_know_their_place() -> None:
    call = read(input=[str(n) for n in range(50)], dimensions=7)
    tickets = call.tickets(8, is_one=False)
    assert [(ticket.first, len(ticket.inputs)) for ticket in tickets] == [(0, 16), (16, 17), (33, 17)]
    assert sum((ticket.inputs for ticket in tickets), ()) == call.texts
    assert {ticket.dimensions for ticket in tickets} == {7}
    assert [call.label(ticket).first for ticket in tickets] == [0, 16, 33]
    assert [len(ticket.inputs) for ticket in call.tickets(2, is_one=False)] == [25, 25]
    assert call.tickets(8, is_one=True) == call.tickets(0, is_one=False) == [Embed(inputs=call.texts, dimensions=7)]


def test_the_answer_in_both_forms() -> None:
    vectors = [pack("<2f", 1, -0.5), pack("<2f", 0.1, 0)]
    plain = CreateEmbeddingResponse.model_validate_json(
        b"".join(read(input=["a", "b"]).render(vectors, Usage(prompt_tokens=9))), strict=True
    )
    assert (plain.object, plain.model) == ("list", "m")
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens) == (9, 9)
    assert [(one.object, one.index) for one in plain.data] == [("embedding", 0), ("embedding", 1)]
    assert plain.data[0].embedding == [1.0, -0.5]
    assert pack("<2f", *plain.data[1].embedding) == vectors[1], "no bit is lost"
    packed = json.loads(b"".join(read(input=["a", "b"], encoding_format="base64").render(vectors, Usage())))
    assert [base64.b64decode(one["embedding"]) for one in packed["data"]] == vectors


def test_a_vector_that_is_missing_is_no_shorter_answer() -> None:
    with pytest.raises(EngineFailed, match="2 inputs gave 1"):
        read(input=["a", "b"]).render([b"1234"], Usage())


def test_vectors_of_two_models_are_no_answer() -> None:
    with pytest.raises(EngineFailed, match="vectors of 1 and 2 dimensions"):
        read(input=["a", "b"]).render([b"1234", b"12345678"], Usage())


def test_the_label_survives() -> None:
    label = read(input=["a"] * 40, encoding_format="base64").label(Embed(inputs=("a",), first=32))
    assert label == EmbeddingLabel("m", True, 32)
