"""What an answer looks like as Anthropic's events; pure, put together again by the official client's own code."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from api.anthropic.label import MessageLabel
from api.anthropic.objects import SIGNATURE, message_out
from api.anthropic.partial import whole_part
from api.anthropic.stream import MessageStream
from api.exchange import Rendering
from paddler.chat_formats.ids import call_id
from paddler.errors import BufferFull, EngineFailed, InvalidField, ItemTimeout, PaddlerError
from paddler.jobs.reply import Route
from paddler.wire.balancer import Finished, FinishReason, TextFormat, Tokens, Usage

USAGE = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=4)
USAGE_OUT = {
    "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 3,
}  # fmt: skip
WILD = 'quote " backslash \\ newline \n zero \x00 snow ☃ pair 😀 </script>'
LABEL = MessageLabel('m "1"', 100)
ID = "default.abc"
TOOL_ID = "toolu_" + call_id(ID, 0).removeprefix("call_")
ARGUMENTS = '{"at": "the \\"fox\\""}'
SAID = f'hm\n</think>\n\nI look.\n<tool_call>\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>'
THINKING = TextFormat("hermes", "think", True)

_event: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def stream(label: MessageLabel = LABEL, format: TextFormat | None = None, stop: str | None = None) -> MessageStream:
    return MessageStream(ID, label, route=Route(prompt_tokens=7, cached_tokens=4, format=format, stop=stop))


def events(data: bytes) -> list[Any]:
    """The JSON of each event, which is named as its type says; everything must be a whole event."""
    found: list[Any] = []
    assert data.endswith(b"\n\n")
    for event in data.removesuffix(b"\n\n").split(b"\n\n"):
        name, body = event.split(b"\n")
        found.append(json.loads(body.removeprefix(b"data: ")))
        assert name.decode() == f"event: {found[-1]['type']}"
    return found


def accumulated(found: list[Any]) -> Message:
    """As the client's stream helper has it, which passes over pings."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for one in found:
        if one["type"] != "ping":
            snapshot = accumulate_event(
                event=_event.validate_python(one, strict=True), current_snapshot=snapshot, json_bufs=buffers
            )
    return snapshot


def message_start() -> dict[str, Any]:
    message = {
        "type": "message", "id": "msg_default.abc", "role": "assistant", "model": 'm "1"', "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": USAGE_OUT | {"output_tokens": 0},
    }  # fmt: skip
    return {"type": "message_start", "message": message}


def delta(index: int, kind: str, **fields: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def message_delta(stop_reason: str, stop_sequence: str | None = None) -> dict[str, Any]:
    ended = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
    return {"type": "message_delta", "delta": ended, "usage": USAGE_OUT}


def test_golden_stream() -> None:
    out: Rendering = stream()
    assert events(out.tokens("hel")) == [
        message_start(),
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        delta(0, "text_delta", text="hel"),
    ]
    assert events(out.tokens(WILD)) == [delta(0, "text_delta", text=WILD)]
    assert events(out.finished(FinishReason.STOP, USAGE)) == [
        {"type": "content_block_stop", "index": 0},
        message_delta("end_turn"),
        {"type": "message_stop"},
    ]


def test_golden_bytes_of_a_token() -> None:
    out = stream()
    out.tokens("a")
    assert out.tokens("b") == (
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b"}}\n\n'
    )


def test_golden_stream_of_a_thought_a_text_and_a_call() -> None:
    out = stream(format=THINKING)
    found = events(b"".join([out.tokens(SAID[:5]), out.tokens(SAID[5:]), out.finished(FinishReason.STOP, USAGE)]))
    assert found == [
        message_start(),
        {"type": "ping"},
        {
            "type": "content_block_start", "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        delta(0, "thinking_delta", thinking="hm"),
        delta(0, "signature_delta", signature=SIGNATURE),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        delta(1, "text_delta", text="I look."),
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start", "index": 2,
            "content_block": {"type": "tool_use", "id": TOOL_ID, "name": "look", "input": {}},
        },
        delta(2, "input_json_delta", partial_json=ARGUMENTS),
        {"type": "content_block_stop", "index": 2},
        message_delta("tool_use"),
        {"type": "message_stop"},
    ]  # fmt: skip


def test_a_hidden_thought_is_empty_and_comes_back_with_a_signature() -> None:
    label = MessageLabel("m", 100, hides_thinking=True)
    out = stream(label, format=THINKING)
    message = accumulated(events(out.tokens(SAID) + out.finished(FinishReason.STOP, USAGE)))
    whole = message_out(ID, [Tokens((1,), SAID)], Finished(FinishReason.STOP, USAGE), label, THINKING)
    for content in (json.loads(msgspec.json.encode(whole.content)), [block.to_dict() for block in message.content]):
        assert content[0] == {"type": "thinking", "thinking": "", "signature": SIGNATURE}
        assert [block["type"] for block in content] == ["thinking", "text", "tool_use"]


@pytest.mark.parametrize("format", [None, THINKING, TextFormat("hermes")])
@pytest.mark.parametrize("said", [SAID, WILD, "", "plain", SAID[:-40], f"{SAID}\n{SAID}"])
def test_a_stream_put_together_is_the_whole_answer(format: TextFormat | None, said: str) -> None:
    out = stream(format=format)
    told = b"".join(map(out.tokens, said)) + out.finished(FinishReason.STOP, USAGE)
    whole = message_out(ID, [Tokens((1,), said)], Finished(FinishReason.STOP, USAGE), LABEL, format)
    body = json.loads(msgspec.json.encode(whole))
    nothing = {"stop_details": None}  # the client's own, of events that have none
    assert accumulated(events(told)).to_dict() == Message.model_validate(body, strict=True).to_dict() | nothing


@pytest.mark.parametrize("format", [None, THINKING])
def test_it_goes_on_behind_any_frame(format: TextFormat | None) -> None:
    frames = [Tokens((1,), SAID[at : at + 7]) for at in range(0, len(SAID), 7)]
    out = stream(format=format)
    told = [out.tokens(frame.text) for frame in frames]
    end = out.finished(FinishReason.STOP, USAGE)
    route = Route(prompt_tokens=7, cached_tokens=4, format=format)
    for at in range(len(frames) + 1):
        again = MessageStream(ID, LABEL, route=route, earlier=frames[:at])
        assert [again.tokens(frame.text) for frame in frames[at:]] == told[at:]
        assert again.finished(FinishReason.STOP, USAGE) == end


def test_held_back_text_writes_nothing_and_an_empty_answer_is_a_message() -> None:
    out = stream()
    assert out.tokens("") == b""
    start, _, end, stop = events(out.finished(FinishReason.STOP, USAGE))
    assert (start["type"], end["delta"]["stop_reason"], stop["type"]) == ("message_start", "end_turn", "message_stop")
    assert events(stream().over()) == [{"type": "message_stop"}]


@pytest.mark.parametrize(
    ("reason", "stop", "max_tokens", "said", "expected"),
    [
        (FinishReason.STOP, None, 100, "x", ("end_turn", None)),
        (FinishReason.STOP, "END", 100, "x", ("stop_sequence", "END")),
        (FinishReason.LENGTH, None, 3, "x", ("max_tokens", None)),
        (FinishReason.LENGTH, None, 4, "x", ("model_context_window_exceeded", None)),
        (FinishReason.STOP, None, 100, SAID, ("tool_use", None)),
        (FinishReason.STOP, "fox", 100, SAID[: SAID.index("fox")], ("stop_sequence", "fox")),
        (FinishReason.LENGTH, None, 3, SAID[: SAID.index("fox")], ("max_tokens", None)),
    ],
)
def test_why_it_has_ended(
    reason: FinishReason, stop: str | None, max_tokens: int, said: str, expected: tuple[str, str | None]
) -> None:
    label, format = MessageLabel("m", max_tokens), TextFormat("hermes")
    whole = message_out(ID, [Tokens((1,), said)], Finished(reason, USAGE, stop), label, format)
    assert (whole.stop_reason, whole.stop_sequence) == expected
    out = stream(label, format, stop)
    message = accumulated(events(out.tokens(said) + out.finished(reason, USAGE)))
    assert (message.stop_reason, message.stop_sequence) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (ARGUMENTS, ARGUMENTS),
        ("", "{}"),
        ("{", "{}"),
        ('{"a', "{}"),
        ('{"a": 1', "{}"),
        ('{"a": 1, "b": "x, }', '{"a": 1}'),
        ('{"a": [1, {"b": [2, 3], "c": 4', '{"a": [1, {"b": [2, 3]}]}'),
        ('{"a": {"b": "\\"}", "c"', '{"a": {"b": "\\"}"}}'),
        ('{"a": {"b": {}}', '{"a": {"b": {}}}'),
        ("nonsense", "{}"),
        ("[1, 2]", "{}"),
    ],
)
def test_what_is_left_of_arguments_that_were_cut_off(text: str, part: str) -> None:
    assert whole_part(text) == part


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BufferFull("full"), "overloaded_error"),
        (EngineFailed("broken"), "api_error"),
        (ItemTimeout("silent"), "timeout_error"),
        (InvalidField("bad", param="messages"), "invalid_request_error"),
    ],
)
def test_an_error_ends_the_stream(error: PaddlerError, kind: str) -> None:
    (told,) = events(stream().failed(error))
    assert told["request_id"] == ID
    assert told["error"]["type"] == kind
    assert error.message in told["error"]["message"]
    assert told["error"]["details"] == {"error_code": error.code} | ({"param": "messages"} if error.param else {})


def test_an_image_is_called_as_its_client_calls_it() -> None:
    label = MessageLabel("m", 1, images=(("messages[3].content[1]", "messages[2].content[0].content[0]"),))
    error = InvalidField("`messages[3].content[1]`: too large.", param="messages[3].content[1]")
    (told,) = events(stream(label).failed(error))
    assert told["error"]["message"] == "`messages[2].content[0].content[0]`: too large."
