"""The bytes on the wire, pinned: processes of different versions read each other's."""

from __future__ import annotations

from struct import pack
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.wire.agent import (
    ApplyTemplate,
    Ask,
    CancelRequest,
    Control,
    CountTokens,
    Detokenize,
    Embed,
    Generate,
    ImagePart,
    Message,
    OperatorOrder,
    Poke,
    Question,
    Rerank,
    Sampling,
    TextPart,
    Tokenize,
    Tool,
    ToolCall,
    TryTemplate,
    decode_control,
    decode_payload,
    encode_control,
    encode_payload,
)
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized, decode_answer, encode_answer
from paddler.wire.balancer import (
    UNKNOWN_TOKEN,
    Answered,
    Delivery,
    Failed,
    Finished,
    FinishReason,
    Frame,
    Opened,
    Prefilled,
    TextFormat,
    TokenLogprob,
    Tokens,
    Usage,
    Vectors,
    decode_delivery,
    decode_frames,
    encode_frame,
)
from paddler.wire.stored import StoredResponse, decode_stored, encode_stored
from paddler.wire.trials import TemplateTrial, decode_trial, encode_trial

FRAMES: list[tuple[Frame, str]] = [
    (Opened("a", 2), "0000000b93a66f70656e6564a16102"),
    (Opened("a", 2, "v", "w"), "0000000f95a66f70656e6564a16102a176a177"),
    (Prefilled(300, 7), "0000000f93a970726566696c6c6564cd012c07"),
    (Tokens((UNKNOWN_TOKEN, UNKNOWN_TOKEN), "a"), "0000000d93a6746f6b656e7392ffffa161"),
    (
        Prefilled(300, 7, TextFormat("hermes", "think", True)),
        "0000001e94a970726566696c6c6564cd012c0793a66865726d6573a57468696e6bc3",
    ),
    (Tokens((1, 300), "hé"), "0000001193a6746f6b656e739201cd012ca368c3a9"),
    (Tokens((7,), "a", 2.5), "0000001695a6746f6b656e739107a161cb400400000000000090"),
    (
        Tokens((7,), "a", None, (TokenLogprob(b"a", -0.5, ((b"a", -0.5), (b"\xff", -2.0))),)),
        "0000003695a6746f6b656e739107a161c09193c40161cbbfe00000000000009292c40161cbbfe000000000000092c401ffcbc000000000000000",
    ),
    (Vectors((pack("<2f", 1, -0.5), b""), (3, 0)), "0000001993a7766563746f727392c4080000803f000000bfc400920300"),
    (Answered(b"\x01"), "0000000d92a8616e737765726564c40101"),
    (Finished(FinishReason.STOP, Usage(7, 2, 1)), "0000001393a866696e6973686564a473746f7093070201"),
    (Finished(FinishReason.STOP, Usage(7, 2, 1), "END"), "0000001794a866696e6973686564a473746f7093070201a3454e44"),
    (
        Failed("buffer_full", "no", 503, True, None),
        "0000001c96a66661696c6564ab6275666665725f66756c6ca26e6fcd01f7c3c0",
    ),
]


@pytest.mark.parametrize(("frame", "golden"), FRAMES)
def test_frames(frame: Frame, golden: str) -> None:
    assert encode_frame(frame).hex() == golden
    assert list(decode_frames(bytes.fromhex(golden))) == [frame]


def test_stored_response() -> None:
    record = StoredResponse(b"[]", ("default.a",), 2)
    assert encode_stored(record).hex() == "93c4025b5d91a964656661756c742e6102"
    assert decode_stored(bytes.fromhex("93c4025b5d91a964656661756c742e6102")) == record


def test_payload() -> None:
    payload = Generate(
        messages=(Message("user", "hi"),), max_tokens=5, stop=("x",), sampling=Sampling(temperature=0.0, seed=9)
    )
    encoded = encode_payload(payload)
    assert msgspec.msgpack.decode(encoded) == {
        "type": "generate",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "stop": ["x"],
        "sampling": {"temperature": 0.0, "seed": 9},
    }
    assert decode_payload(encoded) == payload


def test_a_message_with_an_image() -> None:
    payload = Generate(messages=(Message("user", "hi", parts=(TextPart("hi"), ImagePart(b"\xff\0"))),))
    encoded = encode_payload(payload)
    parts = [{"type": "text", "text": "hi"}, {"type": "image", "data": b"\xff\0"}]
    assert msgspec.msgpack.decode(encoded) == {
        "type": "generate",
        "messages": [{"role": "user", "content": "hi", "parts": parts}],
    }
    assert decode_payload(encoded) == payload


def test_raw_prompts() -> None:
    for payload, fields in (
        (Generate(prompt_ids=(1, 300)), {"prompt_ids": [1, 300]}),
        (Generate(prompt="a", suffix="b"), {"prompt": "a", "suffix": "b"}),
    ):
        encoded = encode_payload(payload)
        assert msgspec.msgpack.decode(encoded) == {"type": "generate", **fields}
        assert decode_payload(encoded) == payload


def test_a_traced_payload() -> None:
    """An older agent skips the field; where nothing is traced the bytes are as they were."""
    context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for payload, fields in (
        (Generate(prompt="a", traceparent=context), {"type": "generate", "prompt": "a"}),
        (Embed(inputs=("a",), traceparent=context), {"type": "embed", "inputs": ["a"]}),
        (
            Rerank(query="q", documents=("d",), traceparent=context),
            {"type": "rerank", "query": "q", "documents": ["d"]},
        ),
    ):
        encoded = encode_payload(payload)
        assert msgspec.msgpack.decode(encoded) == {**fields, "traceparent": context}
        assert decode_payload(encoded) == payload
        assert msgspec.msgpack.decode(encode_payload(msgspec.structs.replace(payload, traceparent=""))) == fields


def test_a_payload_with_a_grammar() -> None:
    payload = Generate(prompt="x", grammar='root ::= "a"')
    encoded = encode_payload(payload)
    assert msgspec.msgpack.decode(encoded) == {"type": "generate", "prompt": "x", "grammar": 'root ::= "a"'}
    assert decode_payload(encoded) == payload


def test_a_payload_with_the_schema_of_its_grammar() -> None:
    payload = Generate(prompt="x", grammar='root ::= "a"', schema='{"const":"a"}')
    encoded = encode_payload(payload)
    assert msgspec.msgpack.decode(encoded)["schema"] == '{"const":"a"}'
    assert decode_payload(encoded) == payload


def test_a_payload_with_tools() -> None:
    payload = Generate(
        messages=(
            Message("assistant", "", tool_calls=(ToolCall("1", "look", "{}"),), reasoning_content="hm"),
            Message("tool", "a fox", tool_call_id="1"),
        ),
        tools=(Tool("look", '{"type":"object"}', "Looks."), Tool("go", "{}")),
        tool_choice="required",
        tool_name="look",
        parallel_tool_calls=False,
        template_kwargs='{"enable_thinking":false}',
    )
    encoded = encode_payload(payload)
    assert msgspec.msgpack.decode(encoded) == {
        "type": "generate",
        "messages": [
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "look", "arguments": "{}"}],
             "reasoning_content": "hm"},
            {"role": "tool", "content": "a fox", "tool_call_id": "1"},
        ],
        "tools": [
            {"name": "look", "parameters": '{"type":"object"}', "description": "Looks."},
            {"name": "go", "parameters": "{}"},
        ],
        "tool_choice": "required",
        "tool_name": "look",
        "parallel_tool_calls": False,
        "template_kwargs": '{"enable_thinking":false}',
    }  # fmt: skip
    assert decode_payload(encoded) == payload


def test_a_payload_whose_answer_has_begun() -> None:
    payload = Generate(messages=(Message("user", "hi"),), beginning="The")
    encoded = encode_payload(payload)
    messages = [{"role": "user", "content": "hi"}]
    assert msgspec.msgpack.decode(encoded) == {"type": "generate", "messages": messages, "beginning": "The"}
    assert decode_payload(encoded) == payload


def test_a_payload_that_wishes_for_thinking() -> None:
    encoded = encode_payload(Generate(prompt="x", enable_thinking=False))
    assert msgspec.msgpack.decode(encoded) == {"type": "generate", "prompt": "x", "enable_thinking": False}
    assert decode_payload(encode_payload(Generate(prompt="x"))) == Generate(prompt="x", enable_thinking=None)


def test_sampling_as_llama_cpp_names_it() -> None:
    fields: dict[str, Any] = {
        "logit_bias": ((5, -100.0), ("no", 1.5)), "ignore_eos": True, "min_keep": 2, "typical_p": 0.5,
        "top_n_sigma": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.2, "dynatemp_range": 0.5,
        "dynatemp_exponent": 2.0, "dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3,
        "dry_penalty_last_n": -1, "dry_sequence_breakers": ("x",), "mirostat": 2, "mirostat_tau": 3.0,
        "mirostat_eta": 0.2,
    }  # fmt: skip
    encoded = encode_payload(Generate(prompt="p", sampling=Sampling(**fields)))
    in_lists = fields | {"logit_bias": [[5, -100.0], ["no", 1.5]], "dry_sequence_breakers": ["x"]}
    assert msgspec.msgpack.decode(encoded) == {"type": "generate", "prompt": "p", "sampling": in_lists}
    assert decode_payload(encoded) == Generate(prompt="p", sampling=Sampling(**fields))


def test_a_payload_to_embed() -> None:
    payload = Embed(inputs=("a", "b"), normalization="rms_norm", rms_epsilon=0.5, dimensions=3, first=16)
    encoded = encode_payload(payload)
    assert msgspec.msgpack.decode(encoded) == {
        "type": "embed",
        "inputs": ["a", "b"],
        "normalization": "rms_norm",
        "rms_epsilon": 0.5,
        "dimensions": 3,
        "first": 16,
    }
    assert decode_payload(encoded) == payload
    assert msgspec.msgpack.decode(encode_payload(Embed(inputs=("a",)))) == {"type": "embed", "inputs": ["a"]}


def test_a_payload_to_rank() -> None:
    payload = Rerank(query="q", documents=("a", "b"), first=16)
    encoded = encode_payload(payload)
    assert msgspec.msgpack.decode(encoded) == {"type": "rerank", "query": "q", "documents": ["a", "b"], "first": 16}
    assert decode_payload(encoded) == payload


@pytest.mark.parametrize(
    ("question", "fields"),
    [
        (Tokenize(text="a"), {"type": "tokenize", "text": "a"}),
        (
            Tokenize(text="a", adds_special=True, has_control=False, with_pieces=True),
            {"type": "tokenize", "text": "a", "adds_special": True, "has_control": False, "with_pieces": True},
        ),
        (Detokenize(tokens=(1, 2)), {"type": "detokenize", "tokens": [1, 2]}),
        (
            ApplyTemplate(request=Generate(prompt="p")),
            {"type": "apply_template", "request": {"type": "generate", "prompt": "p"}},
        ),
        (
            CountTokens(request=Generate(prompt="p")),
            {"type": "count_tokens", "request": {"type": "generate", "prompt": "p"}},
        ),
    ],
)
def test_questions(question: Question, fields: dict[str, Any]) -> None:
    encoded = encode_payload(question)
    assert msgspec.msgpack.decode(encoded) == fields
    assert decode_payload(encoded) == question


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (Tokenized((1, 300)), ["tokenized", [1, 300], None]),
        (Tokenized((1,), (b"\xff",)), ["tokenized", [1], [b"\xff"]]),
        (Detokenized("hé"), ["detokenized", "hé"]),
        (Templated("p"), ["templated", "p"]),
        (Counted(7), ["counted", 7]),
    ],
)
def test_answers(answer: Answer, fields: list[Any]) -> None:
    encoded = encode_answer(answer)
    assert msgspec.msgpack.decode(encoded) == fields
    assert decode_answer(encoded) == answer


def test_what_is_unknown_in_a_payload_is_an_error_and_not_something_else() -> None:
    for fields in ({"type": "classify"}, {"type": "embed", "inputs": ["a"], "normalization": "l3"}):
        with pytest.raises(msgspec.ValidationError):
            decode_payload(msgspec.msgpack.encode(fields))


def test_an_older_agent_skips_fields_it_does_not_know() -> None:
    newer = msgspec.msgpack.encode({"type": "generate", "prompt": "p", "invented_later": 1})
    assert decode_payload(newer) == Generate(prompt="p")


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (Poke(7), "92a4706f6b6507"),
        (CancelRequest("p.1"), "92a663616e63656ca3702e31"),
        (Ask("q", "model_metadata"), "93a361736ba171ae6d6f64656c5f6d65746164617461"),
        (OperatorOrder("drain"), "92a56f72646572a5647261696e"),
        (
            TryTemplate("q", Generate(prompt="p")),
            "94ac7472795f74656d706c617465a171de0002a474797065a867656e6572617465a670726f6d7074a170c0",
        ),
        (
            TryTemplate("q", Generate(prompt="p"), "t"),
            "94ac7472795f74656d706c617465a171de0002a474797065a867656e6572617465a670726f6d7074a170a174",
        ),
    ],
)
def test_control(message: Control, golden: str) -> None:
    assert encode_control(message).hex() == golden
    assert decode_control(bytes.fromhex(golden)) == message


@pytest.mark.parametrize(
    ("trial", "golden"),
    [
        (TemplateTrial(prompt="p"), {"prompt": "p", "error": None, "line": None, "is_cut": False, "source": "given"}),
        (
            TemplateTrial(error="e", line=3, source="model"),
            {"prompt": None, "error": "e", "line": 3, "is_cut": False, "source": "model"},
        ),
    ],
)
def test_what_became_of_a_template(trial: TemplateTrial, golden: dict[str, Any]) -> None:
    assert msgspec.json.decode(encode_trial(trial)) == golden
    assert decode_trial(encode_trial(trial)) == trial


def test_a_poke_of_an_older_process_means_now() -> None:
    assert decode_control(bytes.fromhex("91a4706f6b65")) == Poke(0)


def test_delivery() -> None:
    assert decode_delivery(b"\x00\x03p.1\x00\x00\x01\x00frames") == Delivery("p.1", 256, b"frames")


@given(st.lists(st.sampled_from([frame for frame, _ in FRAMES]), max_size=5), st.data())
def test_a_cut_journal_is_an_error_not_a_shorter_one(frames: list[Frame], data: st.DataObject) -> None:
    journal = b"".join(map(encode_frame, frames))
    ends = {len(b"".join(map(encode_frame, frames[:n]))) for n in range(len(frames) + 1)}
    cut = data.draw(st.integers(0, len(journal)))
    if cut in ends:
        assert all(isinstance(frame, Frame) for frame in decode_frames(journal[:cut]))
    else:
        with pytest.raises(ValueError, match="ends within"):
            list(decode_frames(journal[:cut]))
