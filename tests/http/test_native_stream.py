"""Golden envelopes of native requests: which kind each text is of, how many tokens, and how calls of tools are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.native.counts import TokenCounts
from api.native.envelope import Envelopes
from api.native.label import NativeLabel
from api.native.stream import NativeStream
from paddler.chat_formats.ids import call_id
from paddler.ids import new_request_id
from paddler.jobs.mailbox import Mailbox
from paddler.jobs.reply import Reply
from paddler.wire.balancer import Finished, FinishReason, Frame, Opened, Prefilled, TextFormat, Tokens, Usage

CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "a } \\" ☃"}}\n</tool_call>'
HERMES = TextFormat("hermes", "think", is_thinking=True)
Lines = list[bytes]


class Rendered:
    """What a stream made of text, cut into frames of so many characters, a token each."""

    def __init__(self, text: str, size: int, label: NativeLabel, format: TextFormat | None, begun: int = 0) -> None:
        frames: list[Frame] = [Opened("ann", 1), Prefilled(7, 3, format)]
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        frames += [Tokens((1,), piece) for piece in pieces]
        self.reply = Reply(Mailbox(new_request_id("default"), now=0, start_deadline=None), lambda _: None)
        if begun:
            earlier = frames[: 2 + begun]
            mailbox = Mailbox(self.reply.request_id, now=0, start_deadline=None)
            self.reply = Reply(mailbox, lambda _: None, offset=1, earlier=earlier)
            frames = frames[2 + begun :]
        stream = NativeStream(Envelopes("mine"), label, self.reply)
        lines: Lines = []
        for frame in frames:
            self.reply.route.note(frame)
            if isinstance(frame, Tokens):
                lines += stream.tokens(frame.text)
        # One more that has no text: the end's.
        end = Finished(FinishReason.STOP, Usage(7, len(pieces) + 1, 3))
        self.reply.route.note(end)
        self.lines = lines + stream.finished(end)
        self.results: list[tuple[str, Any]] = []
        for line in self.lines:
            response = json.loads(line)["Response"]
            assert (response["request_id"], response["generated_by"]) == ("mine", "ann")
            self.results += response["response"]["GeneratedToken"].items()

    def text(self, kind: str) -> str:
        return "".join(value for name, value in self.results if name == kind)

    @property
    def usage(self) -> dict[str, int]:
        kind, value = self.results[-1]
        assert kind == "Done"
        return value["usage"]


def test_bytes_of_a_plain_answer() -> None:
    lines = Rendered('say "hé"', 4, NativeLabel(), None).lines
    head = b'{"Response":{"generated_by":"ann","request_id":"mine","response":{"GeneratedToken":'
    assert lines == [
        head + b'{"ContentToken":"say "}}}}',
        head + '{"ContentToken":"\\"hé\\""}}}}'.encode(),
        head + b'{"Done":{"usage":{"prompt_tokens":7,"cached_prompt_tokens":3,"input_image_tokens":0,'
        b'"input_audio_tokens":0,"content_tokens":3,"reasoning_tokens":0,"tool_call_tokens":0,'
        b'"undeterminable_tokens":0}}}}}}',
    ]
    assert Envelopes('a"b').error(503, "no") == (
        b'{"Error":{"request_id":"a\\"b","error":{"code":503,"description":"no"}}}'
    )


def test_of_a_raw_prompt_nothing_is_known() -> None:
    rendered = Rendered("<think>so</think>", 3, NativeLabel(is_raw=True), None)
    assert rendered.text("UndeterminableToken") == "<think>so</think>"
    assert rendered.usage["undeterminable_tokens"] == 7
    assert sum(value for name, value in rendered.usage.items() if name.endswith("_tokens")) == 7 + 3 + 7


@pytest.mark.parametrize("size", [1, 2, 5, 13, 1000])
@pytest.mark.parametrize("parses_calls", [False, True])
def test_thought_text_and_calls_are_apart(size: int, parses_calls: bool) -> None:
    said = f"I think.</think>\n\nI look.\n{CALL}\n{CALL}"
    rendered = Rendered(said, size, NativeLabel(parses_calls=parses_calls), HERMES)
    assert rendered.text("ReasoningToken") == "I think."
    assert rendered.text("ContentToken") == "I look."
    calls = rendered.text("ToolCallToken").split("\n")
    assert [json.loads(call) for call in calls] == [{"name": "look", "arguments": {"at": 'a } " ☃'}}] * 2
    kinds = ("content_tokens", "reasoning_tokens", "tool_call_tokens", "undeterminable_tokens")
    assert sum(rendered.usage[kind] for kind in kinds) == -(-len(said) // size) + 1
    if size < 10:
        assert all(rendered.usage[kind] for kind in kinds[:3])
    parsed = [value for name, value in rendered.results if name == "ToolCallParsed"]
    arguments = {"ValidJson": {"at": 'a } " ☃'}}
    request_id = rendered.reply.request_id
    told = [{"id": call_id(request_id, index), "name": "look", "arguments": arguments} for index in range(2)]
    assert parsed == ([told] if parses_calls else [])
    assert rendered.results[-2][0] == "ToolCallParsed" or not parses_calls


def test_a_call_that_is_cut_off_is_no_json() -> None:
    rendered = Rendered(CALL[:50], 4, NativeLabel(parses_calls=True), TextFormat("hermes"))
    [call] = dict(rendered.results)["ToolCallParsed"]
    assert call["arguments"].keys() == {"InvalidJson"}
    assert '{"at": '.startswith(call["arguments"]["InvalidJson"][:7])
    assert rendered.text("ToolCallToken") == '{"name": "look", "arguments": ' + call["arguments"]["InvalidJson"]


def test_calls_between_texts() -> None:
    rendered = Rendered(f"{CALL} and then", 1000, NativeLabel(), TextFormat("hermes"))
    assert [name for name, _ in rendered.results] == ["ToolCallToken", "ContentToken", "Done"]
    assert json.loads(rendered.text("ToolCallToken"))["name"] == "look"


@pytest.mark.parametrize("begun", [1, 4, 9, 15])
def test_a_stream_that_goes_on_says_the_rest(begun: int) -> None:
    """Of the same request, with the same usage at the end."""
    said = f"I think.</think>\n\nI look.\n{CALL}"
    label = NativeLabel(parses_calls=True)
    whole, rest = Rendered(said, 5, label, HERMES), Rendered(said, 5, label, HERMES, begun)
    for kind in ("ReasoningToken", "ContentToken", "ToolCallToken"):
        assert whole.text(kind).endswith(rest.text(kind))
    assert whole.usage == rest.usage
    assert len(rest.lines) < len(whole.lines)
    assert dict(rest.results)["ToolCallParsed"][0]["arguments"] == {"ValidJson": {"at": 'a } " ☃'}}


def test_tokens_of_a_frame_are_shared_by_length() -> None:
    counts = TokenCounts("ContentToken")
    counts.add(1, ())  # a mark that opens
    counts.add(10, [("ReasoningToken", "x" * 30), ("ContentToken", "y" * 10)])
    assert counts.numbers["ReasoningToken"] == 9
    assert counts.numbers["ContentToken"] == 2
    counts.add(2, ())
    counts.add(1, [("ToolCallToken", "{")])
    counts.add(3, ())
    counts.close(18)
    assert counts.numbers == {
        "ReasoningToken": 9,
        "ContentToken": 2,
        "ToolCallToken": 7,
        "UndeterminableToken": 0,
    }
