"""What a chat completion looks like on the wire; pure, read back with the official client's models."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from api.exchange import Rendering
from api.openai.completion import ChatStream, chat_completion
from api.openai.label import ChatLabel
from paddler.errors import BufferFull, InvalidField
from paddler.wire.balancer import Finished, FinishReason, Tokens, Usage

USAGE = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=4)
WILD = 'quote " backslash \\ newline \n zero \x00 snow ☃ pair 😀 </script>'


def stream(*, include_usage: bool = False) -> ChatStream:
    return ChatStream("default.abc", ChatLabel('m "1"', 1234, include_usage))


def events(data: bytes) -> list[Any]:
    """The JSON of each event; everything must be a whole event."""
    assert data.endswith(b"\n\n")
    found = data.removesuffix(b"\n\n").split(b"\n\n")
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in found)
    return [event[6:].decode() if event == b"data: [DONE]" else json.loads(event[6:]) for event in found]


def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
    same = {"id": "chatcmpl-default.abc", "object": "chat.completion.chunk", "created": 1234, "model": 'm "1"'}
    return same | {"choices": choices} | more


def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def test_golden_stream() -> None:
    out: Rendering = stream()
    first, second = out.tokens("hel"), out.tokens(WILD)
    assert events(first) == [
        chunk([choice({"role": "assistant", "content": ""})]),
        chunk([choice({"content": "hel"})]),
    ]
    assert events(second) == [chunk([choice({"content": WILD})])]
    assert events(out.finished(FinishReason.LENGTH, USAGE)) == [chunk([choice({}, "length")]), "[DONE]"]


def test_golden_bytes_of_a_token() -> None:
    out = stream()
    out.tokens("a")
    assert out.tokens("b") == (
        b'data: {"id":"chatcmpl-default.abc","object":"chat.completion.chunk","created":1234,"model":"m \\"1\\"",'
        b'"choices":[{"index":0,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}]}\n\n'
    )


def test_usage_is_null_until_its_own_last_chunk() -> None:
    out = stream(include_usage=True)
    seen = events(out.tokens("x") + out.finished(FinishReason.STOP, USAGE))
    assert [event["usage"] for event in seen[:-2]] == [None, None, None]
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert seen[-2:] == [chunk([], usage=usage), "[DONE]"]


def test_held_back_text_writes_nothing_and_an_empty_answer_still_has_a_role() -> None:
    out = stream()
    assert out.tokens("") == b""
    role, last, done = events(out.finished(FinishReason.STOP, USAGE))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


def test_an_error_ends_the_stream() -> None:
    assert events(stream().failed(BufferFull("full"))) == [
        {"error": {"message": "full", "type": "server_error", "param": None, "code": "buffer_full"}},
        "[DONE]",
    ]
    (error, _) = events(stream().failed(InvalidField("bad", param="x")))
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["param"] == "x"


@pytest.mark.parametrize("include_usage", [True, False])
def test_the_official_models_take_every_chunk(include_usage: bool) -> None:
    out = stream(include_usage=include_usage)
    for event in events(out.tokens("x") + out.tokens("y") + out.finished(FinishReason.STOP, USAGE)):
        if event != "[DONE]":
            ChatCompletionChunk.model_validate(event, strict=True)


def test_golden_answer() -> None:
    body = msgspec.json.encode(
        chat_completion("default.abc", [Tokens((1,), WILD)], Finished(FinishReason.STOP, USAGE), ChatLabel("m", 1234))
    )
    assert json.loads(body) == {
        "id": "chatcmpl-default.abc",
        "object": "chat.completion",
        "created": 1234,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WILD, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }
    ChatCompletion.model_validate_json(body, strict=True)
