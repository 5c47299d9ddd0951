"""Whatever a server does to a request, it has one outcome, and a failure the right kind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bench_calls import measure, plan, shape, summary_of, texts_of
from fake_upstream import (
    Asked,
    FakeUpstream,
    Handler,
    always,
    breaking_off,
    chunk,
    for_ever,
    in_turn,
    telling,
)

from paddler.bench.client import CHAT, Asking, Target
from paddler.bench.events import EventLines
from paddler.bench.preflight import CannotBench
from paddler.bench.run import Load
from paddler.bench.samples import Failure
from paddler.bench.workload import Span
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

ONCE = Load(concurrency=1, max_requests=1)


def events(*values: Any, kind: str = "text/event-stream") -> Handler:
    """These as events, and the end of the connection."""

    async def answer(asked: Asked) -> None:
        await asked.begin(200, kind)
        for value in values:
            await asked.event(value)

    return answer


def short_of(value: Any) -> Handler:
    """The connection ends before the length that was said."""

    async def answer(asked: Asked) -> None:
        await asked.begin(200, size=10_000)
        await asked.event(value)
        asked.abort()

    return answer


HELLO = chunk({"content": "hello"})
LAST = chunk(finish="stop")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (always({"error": {"message": "full", "code": "buffer_full"}}, 503), "status 503", "full (buffer_full)"),
        (always({"error": "plain"}, 429), "status 429", "plain"),
        (always(["no object"], 500), "status 500", '["no object"]'),
        (always({}, 302), "status 302", "{}"),
        (events(HELLO, {"error": {"message": "lost", "code": None}}), "error in stream", "lost"),
        (events(HELLO, {"error": {"message": "full", "code": 500}}, b"[DONE]"), "error in stream", "full (500)"),
        (events(HELLO), "broken answer", "without [DONE]"),
        (events(b"{nonsense"), "broken answer", "no chunk of a chat completion"),
        (events(HELLO, kind="text/html"), "broken answer", "text/html came"),
        (breaking_off("hello"), "broken answer", "without [DONE]"),
        (short_of(chunk({"content": "hello"})), "connection", "broke off"),
    ],
)
async def test_failures_have_their_kind(server: FakeUpstream, answer: Handler, kind: str, words: str) -> None:
    server.routes[CHAT] = answer
    found = await summary_of(plan(server.url, load=ONCE))
    assert (found.num_ok, found.errors) == (0, {kind: 1})
    assert words in found.error_examples[kind]


async def test_a_server_that_is_not_there_is_a_failed_connection(server: FakeUpstream) -> None:
    server.stop()
    found = await summary_of(plan(server.url, load=ONCE))
    assert found.errors == {"connection": 1}
    assert str(server.port) in found.error_examples["connection"]


async def test_an_answer_that_takes_too_long_is_left(server: FakeUpstream) -> None:
    server.routes[CHAT] = for_ever("hello")
    found = await summary_of(plan(server.url, load=ONCE, asking=Asking(timeout_s=0.2)))
    assert found.errors == {"timeout": 1}
    await wait_until(lambda: server.generated()[0].is_left, what="the client has left")


async def test_a_client_that_goes_away_is_no_failure(server: FakeUpstream) -> None:
    server.routes[CHAT] = for_ever("hello")
    asked = plan(server.url, load=ONCE, shape=shape(cancel_rate=1.0), asking=Asking(leave_s=0.1, timeout_s=20.0))
    found = await summary_of(asked)
    assert (found.num_cancelled, found.num_failed, found.errors) == (1, 0, {})
    await wait_until(lambda: server.generated()[0].is_left, what="the client has left")


async def test_a_client_that_was_to_go_away_and_is_answered_before_is_in_no_latency(server: FakeUpstream) -> None:
    asked = plan(server.url, load=ONCE, shape=shape(cancel_rate=1.0), asking=Asking(leave_s=20.0, timeout_s=20.0))
    found = await summary_of(asked)
    assert (found.num_ok, found.num_cancelled, found.e2e_ms) == (1, 0, None)


async def test_tokens_are_those_of_usage(server: FakeUpstream) -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 30}}
    server.routes[CHAT] = telling("one ", "two ", "three", usage=usage)
    found = await summary_of(plan(server.url, load=ONCE))
    assert (found.prompt_tokens, found.output_tokens, found.hit_rate) == (40, 12, 0.75)
    assert found.num_counted_by_chunks == 0
    (body,) = [asked.body for asked in server.generated()]
    assert body["stream_options"] == {"include_usage": True}
    assert body["max_tokens"] == 4


async def test_without_usage_chunks_are_counted_and_it_is_told(server: FakeUpstream) -> None:
    server.routes[CHAT] = events(chunk({"role": "assistant", "content": ""}), HELLO, HELLO, LAST, b"[DONE]")
    found = await summary_of(plan(server.url, load=ONCE))
    assert (found.num_ok, found.output_tokens, found.num_counted_by_chunks) == (1, 2, 1)
    assert found.hit_rate is None


async def test_reasoning_and_calls_of_tools_are_output_too(server: FakeUpstream) -> None:
    said = ({"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}, {"reasoning": "so"})
    server.routes[CHAT] = events(*map(chunk, said), LAST, b"[DONE]")
    found = await summary_of(plan(server.url, load=ONCE))
    assert (found.num_ok, found.output_tokens) == (1, 3)


async def test_a_whole_answer_has_only_an_end(server: FakeUpstream) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    server.routes[CHAT] = always({"choices": [{"message": {"content": "hello"}}], "usage": usage})
    found = await summary_of(plan(server.url, load=ONCE, asking=Asking(is_streamed=False)))
    assert (found.num_ok, found.output_tokens, found.ttft_ms) == (1, 3, None)
    assert found.e2e_ms is not None
    assert "stream" not in server.generated()[0].body


async def test_extra_fields_are_merged_and_null_takes_one_away(server: FakeUpstream) -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 7, "temperature": 0}
    await summary_of(plan(server.url, load=ONCE, asking=Asking(extra=extra)))
    (body,) = [asked.body for asked in server.generated()]
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["temperature"]) == (7, 0)


async def test_the_next_turn_has_all_before_it_and_a_failed_one_ends_its_conversation(server: FakeUpstream) -> None:
    server.routes[CHAT] = in_turn([telling("first"), telling("second"), always({}, 500), telling("other")])
    load = Load(concurrency=1, max_requests=4)
    await measure(plan(server.url, load=load, shape=shape(turns=Span(4, 4), system_tokens=5)))
    one, two, three, four = texts_of([asked.body for asked in server.generated()])
    assert [len(texts) for texts in (one, two, three, four)] == [2, 4, 6, 2]
    assert two[:3] == [*one, "first"]
    assert three[:5] == [*two, "second"]
    assert four[0] == one[0], "the system prompt is shared"
    assert four[1] != one[1]


async def test_keys_and_headers_go_only_where_they_belong(server: FakeUpstream) -> None:
    with FakeUpstream() as other:
        targets = [
            Target("a", server.url, "m", {"authorization": "Bearer mine", "x-team": "one"}),
            Target("b", other.url, "m"),
        ]
        await measure(plan(targets=targets))
        assert {asked.headers.get("authorization") for asked in server.generated()} == {"Bearer mine"}
        assert {asked.headers.get("x-team") for asked in server.generated()} == {"one"}
        assert all("authorization" not in asked.headers and "x-team" not in asked.headers for asked in other.asked)
        assert len(other.generated()) == 4


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/v1/models", always({"error": {"message": "no", "code": 1}}, 401), "answered 401: no .*--api-key-file"),
        ("/v1/models", always({"data": []}), "has no model yet; start an agent, or .*--model"),
        ("/v1/models", always("nonsense"), "lists no models as OpenAI's API does"),
        (CHAT, always({"error": {"message": "overloaded"}}, 503), "answered 503: overloaded"),
        (CHAT, events(HELLO), "gave no chat completion"),
    ],
)
async def test_a_target_that_cannot_be_measured_is_told_before_anything_is(
    server: FakeUpstream, path: str, answer: Handler, words: str
) -> None:
    server.routes[path] = answer
    with pytest.raises(CannotBench, match=words):
        await measure(plan(targets=[Target("a", server.url)], tokens_per_word=None))


async def test_the_texts_are_as_long_as_the_target_counts(server: FakeUpstream) -> None:
    async def count(asked: Asked) -> None:
        words = sum(len(message["content"].split()) for message in asked.body["messages"])
        usage = {"prompt_tokens": 20 + 2 * words, "completion_tokens": 1}
        if asked.body.get("stream"):
            await telling("hello", usage=usage)(asked)
        else:
            await asked.json({"choices": [{"message": {"content": "x"}}], "usage": usage})

    server.routes[CHAT] = count
    asked = plan(server.url, load=ONCE, tokens_per_word=None, shape=shape(prompt_tokens=Span(200, 200)))
    bench = await measure(asked)
    assert (bench.tokens_per_word, bench.is_tokens_measured) == (2.0, True)
    assert bench.measured[0].rounds[0].prompt_tokens == 220


async def test_a_second_request_may_have_the_connection_of_the_first_or_a_new_one(server: FakeUpstream) -> None:
    """The server of this test closes each: nothing of that is a failure."""
    found = await summary_of(plan(server.url, load=Load(concurrency=3, max_requests=30)))
    assert (found.num_ok, found.errors) == (30, {})


async def test_a_stop_ends_it_at_once_with_what_there_is(server: FakeUpstream) -> None:
    server.routes[CHAT] = in_turn([telling("hello"), for_ever("hello")])
    stop = asyncio.Event()
    running = asyncio.create_task(measure(plan(server.url, load=Load(concurrency=1, max_requests=5), rounds=3), stop))
    await wait_until(lambda: len(server.generated()) == 2, what="the second request is there")
    stop.set()
    bench = await running
    (summary,) = bench.measured[0].rounds
    assert (summary.num_ok, summary.num_unfinished, summary.is_stopped, bench.is_stopped) == (1, 1, True, True)


def test_events_are_found_however_they_are_cut() -> None:
    stream = b': comment\n\ndata: {"a": 1}\r\n\r\nid: 7\ndata:{"b"\ndata: [DONE]\n\nerror: {"message": "x"}\n'
    whole = EventLines().feed(stream)
    assert whole == [b'{"a": 1}', b'{"b"', b"[DONE]", b'{"error":{"message": "x"}}']
    for at in range(len(stream)):
        lines = EventLines()
        assert [*lines.feed(stream[:at]), *lines.feed(stream[at:])] == whole
    with pytest.raises(Failure, match="without the end of a line"):
        EventLines().feed(b"x" * (8 * 1024 * 1024 + 1))
