"""The events of a response: exact, in one order, and the same from any place on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.openai.label import ResponseLabel, encode_label
from api.responses.answers import render_status
from api.responses.objects import Rendered, told_finished
from api.responses.output import read_output
from api.responses.stream import ResponseStream
from paddler.chat_formats.ids import call_id
from paddler.errors import EngineFailed, RequestCancelled, ShuttingDown
from paddler.jobs.reply import Route
from paddler.jobs.status import RequestStatus
from paddler.wire.balancer import Finished, FinishReason, TextFormat, TokenLogprob, Tokens, Usage

ID = "default.abc"
LABEL = ResponseLabel("m", 123, b'{"model":"m"}')
USAGE = Usage(prompt_tokens=5, completion_tokens=6, cached_tokens=1)
HERMES = TextFormat("hermes", "think", True)
SPOKEN = 'hm\n</think>\n\nI go on.\n<tool_call>\n{"name": "look", "arguments": {"at": "☃"}}\n</tool_call>'


def frames_of(*texts: str) -> list[Tokens]:
    return [Tokens((number,), text) for number, text in enumerate(texts)]


def stream(
    frames: Sequence[Tokens],
    format: TextFormat | None = None,
    label: ResponseLabel = LABEL,
    *,
    reason: FinishReason = FinishReason.STOP,
    after: int = -1,
    num_earlier: int = 0,
) -> str:
    """All that is rendered of a request, from behind an event's number, or from a frame on."""
    route = Route(format=format)
    earlier = frames[:num_earlier]
    for frame in earlier:
        route.note(frame)
    rendering = ResponseStream(ID, label, after=after, is_begun=num_earlier > 0, earlier=earlier, route=route)
    events = b""
    for frame in frames[num_earlier:]:
        route.note(frame)
        events += rendering.tokens(frame.text, frame.logprobs)
    return (events + rendering.finished(reason, USAGE) + rendering.over()).decode()


def datas(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_plain_answer() -> None:
    origin = '"id":"resp_default.abc","object":"response","created_at":123,"model":"m"'
    nothing = '"output":[],"usage":null,"error":null,"incomplete_details":null'
    place = '"item_id":"msg_default.abc_0","output_index":0,"content_index":0'
    begun = '{"type":"message","id":"msg_default.abc_0","status":"in_progress","content":[],"role":"assistant"}'
    end = '"error":null,"incomplete_details":null'
    part = '{"type":"output_text","text":"hi ☃","annotations":[],"logprobs":[]}'
    item = f'{{"type":"message","id":"msg_default.abc_0","status":"completed","content":[{part}],"role":"assistant"}}'
    usage = '{"input_tokens":5,"input_tokens_details":{"cached_tokens":1,"cache_write_tokens":0},"output_tokens":6,'
    usage += '"output_tokens_details":{"reasoning_tokens":0},"total_tokens":11}'
    golden = [
        ("response.created", f'"sequence_number":0,"response":{{{origin},"status":"in_progress",{nothing}}}'),
        ("response.in_progress", f'"sequence_number":1,"response":{{{origin},"status":"in_progress",{nothing}}}'),
        (
            "response.output_item.added",
            f'"sequence_number":2,"output_index":0,"item":{begun}',
        ),
        (
            "response.content_part.added",
            f'"sequence_number":3,{place},"part":{{"type":"output_text","text":"","annotations":[],"logprobs":[]}}',
        ),
        ("response.output_text.delta", f'{place},"sequence_number":4,"delta":"hi","logprobs":[]'),
        ("response.output_text.delta", f'{place},"sequence_number":5,"delta":" ☃","logprobs":[]'),
        ("response.output_text.done", f'"sequence_number":6,{place},"text":"hi ☃","logprobs":[]'),
        ("response.content_part.done", f'"sequence_number":7,{place},"part":{part}'),
        ("response.output_item.done", f'"sequence_number":8,"output_index":0,"item":{item}'),
        (
            "response.completed",
            f'"sequence_number":9,"response":{{{origin},"status":"completed","output":[{item}],"usage":{usage},{end}}}',
        ),
    ]
    expected = "".join(f'event: {kind}\ndata: {{"type":"{kind}",{rest}}}\n\n' for kind, rest in golden)
    assert stream(frames_of("hi", "", " ☃")) == expected


def test_a_thought_an_answer_and_a_call() -> None:
    events = datas(stream(frames_of(*SPOKEN), HERMES))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert [kind for number, kind in enumerate(kinds) if kind != kinds[number - 1]] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    thought, said, call = events[-1]["response"]["output"]
    assert [event["item"] for event in events if event["type"].endswith("item.done")] == [thought, said, call]
    assert (thought["type"], thought["content"], thought["summary"]) == (
        "reasoning",
        [{"type": "reasoning_text", "text": "hm"}],
        [],
    )
    assert said["content"][0]["text"] == "I go on."
    assert (call["name"], call["arguments"], call["call_id"]) == ("look", '{"at": "☃"}', call_id(ID, 0))
    arguments = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    assert "".join(arguments) == call["arguments"]
    # Each character is a token here: of the thought, and of what ends it.
    assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] == 6


@pytest.mark.parametrize(("format", "spoken"), [(None, SPOKEN), (HERMES, SPOKEN), (HERMES, "hm"), (HERMES, "")])
def test_numbers_count_all_events(format: TextFormat | None, spoken: str) -> None:
    events = datas(stream(frames_of(*spoken), format))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


PIECES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def cut(text: str, sizes: Sequence[int]) -> list[Tokens]:
    frames: list[Tokens] = []
    at = 0
    while at < len(text):
        size = sizes[len(frames) % len(sizes)]
        frames.append(Tokens(tuple(range(size)), text[at : at + size]))
        at += size
    return frames


@given(PIECES, st.sampled_from([None, HERMES]), st.sampled_from(list(FinishReason)[:2]), st.integers(-1, 60), st.data())
def test_from_any_place_on_it_is_the_same(
    sizes: list[int], format: TextFormat | None, reason: FinishReason, after: int, data: st.DataObject
) -> None:
    """Behind the event of any number, and from behind any frame of the journal."""
    frames = cut(SPOKEN, sizes)
    whole = stream(frames, format, reason=reason)
    behind = stream(frames, format, reason=reason, after=after)
    assert datas(behind) == datas(whole)[after + 1 :]
    num = data.draw(st.integers(1, len(frames)))
    rest = stream(frames, format, reason=reason, num_earlier=num)
    assert whole.endswith(rest)
    assert datas(rest)[-1]["type"] in ("response.completed", "response.incomplete")


@given(PIECES, st.sampled_from([None, HERMES]), st.sampled_from(list(FinishReason)[:2]))
def test_the_whole_answer_is_that_of_the_last_event(
    sizes: list[int], format: TextFormat | None, reason: FinishReason
) -> None:
    frames = cut(SPOKEN, sizes)
    output = read_output(ID, frames, format)
    output.finish(is_whole=reason is FinishReason.STOP)
    whole = json.loads(Rendered(ID, LABEL).response(told_finished(output, reason, USAGE)))
    assert datas(stream(frames, format, reason=reason))[-1]["response"] == whole


def test_an_answer_that_was_cut_is_incomplete() -> None:
    events = datas(stream(frames_of("hi"), reason=FinishReason.LENGTH))
    assert events[-1]["type"] == "response.incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == events[-2]["item"]["status"] == "incomplete"


def test_a_call_that_a_stop_string_ended_is_incomplete() -> None:
    events = datas(stream(frames_of('<tool_call>\n{"name": "look", "arguments": {"at": "'), TextFormat("hermes")))
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"


def test_an_empty_answer_is_a_message() -> None:
    events = datas(stream([]))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""
    assert [event["type"] for event in events if "delta" in event["type"]] == []


def test_log_probabilities_are_in_deltas_and_in_the_end() -> None:
    label = ResponseLabel("m", 123, LABEL.echo, has_logprobs=True)
    frames = [
        Tokens((1,), "a", None, (TokenLogprob(b"a", -0.5, ((b"b", -1.0),)),)),
        Tokens((2,), "c", None, (TokenLogprob(b"c", -2.0),)),
    ]
    events = datas(stream(frames, label=label))
    told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in each] for each in told] == [["a"], ["c"]]
    assert told[0][0]["top_logprobs"] == [{"token": "b", "logprob": -1.0, "bytes": [98]}]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == told[0] + told[1]


def test_a_background_response_is_queued_first() -> None:
    rendering = ResponseStream(ID, ResponseLabel("m", 123, LABEL.echo, is_background=True))
    events = datas(rendering.tokens("").decode())
    assert rendering.tokens("") == b""
    events += datas(rendering.tokens("hi").decode())[:1]
    assert [(event["type"], event["response"]["status"]) for event in events] == [
        ("response.created", "queued"),
        ("response.queued", "queued"),
        ("response.in_progress", "in_progress"),
    ]
    assert [event["sequence_number"] for event in events] == [0, 1, 2]


def test_a_failed_request_ends_with_the_response_failed() -> None:
    rendering = ResponseStream(ID, LABEL)
    rendering.tokens("hi")
    [event] = datas(rendering.failed(EngineFailed("the model broke")).decode())
    response = event["response"]
    assert (event["type"], event["sequence_number"], response["status"]) == ("response.failed", 5, "failed")
    assert response["error"] == {"code": "server_error", "message": "the model broke"}
    assert response["output"][0]["content"][0]["text"] == "hi"
    assert response["output"][0]["status"] == "incomplete"


def test_a_balancers_own_trouble_is_an_error_and_takes_no_number() -> None:
    rendering = ResponseStream(ID, LABEL, has_failed=lambda: False)
    last = datas(rendering.tokens("hi").decode())[-1]["sequence_number"]
    [event] = datas(rendering.failed(ShuttingDown("stopping")).decode())
    assert event == {
        "type": "error",
        "sequence_number": last,
        "code": "shutting_down",
        "message": "stopping",
        "param": None,
    }


def test_a_cancelled_response_ends_incomplete() -> None:
    rendering = ResponseStream(ID, LABEL)
    rendering.tokens("hi")
    [event] = datas(rendering.failed(RequestCancelled("x")).decode())
    assert (event["type"], event["response"]["status"]) == ("response.incomplete", "cancelled")


def status(state: str, **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "request_id": ID, "state": state, "request_class": "normal", "tenant": "t", "is_background": True,
        "is_cancelling": False, "attempt": 1, "opens": 1, "deaths": 0, "accepted_ms": 1.0, "started_ms": None,
        "ended_ms": None, "start_deadline_ms": None, "label": encode_label(LABEL), "route": Route(),
        "tokens": tuple(frames_of("hi")),
    }  # fmt: skip
    return json.loads(render_status(RequestStatus(**known | fields)))


@pytest.mark.parametrize(
    ("state", "fields", "told", "item"),
    [
        ("waiting", {}, "queued", None),
        ("assigned", {}, "queued", None),
        ("running", {}, "in_progress", "in_progress"),
        ("running", {"is_cancelling": True}, "cancelled", "in_progress"),
        ("cancelled", {}, "cancelled", "incomplete"),
        ("done", {"end": Finished(FinishReason.STOP, USAGE)}, "completed", "completed"),
        ("done", {"end": Finished(FinishReason.LENGTH, USAGE)}, "incomplete", "incomplete"),
    ],
)
def test_what_a_response_is_while_it_runs_and_afterwards(
    state: str, fields: dict[str, Any], told: str, item: str | None
) -> None:
    response = status(state, **fields)
    assert response["status"] == told
    assert [one["status"] for one in response["output"]] == ([] if item is None else [item])
