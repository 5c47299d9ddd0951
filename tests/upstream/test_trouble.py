"""A server that is not there, refuses, breaks off or talks nonsense: what each costs, and what is said of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_upstream import FakeUpstream, Handler, always, breaking_off, chunk, for_ever, in_turn, telling

from paddler.engine import Engine, Job, ModelError
from paddler.issues import Issue
from paddler.testing.engine_run import EngineRun, make_job
from paddler.wire.agent import Generate, Message
from workers.agent.upstream.engine import MAX_TRIES
from workers.agent.upstream.sse import MAX_LINE

NewRun = Callable[..., EngineRun]
CHAT = "/v1/chat/completions"


def chat_job(name: str = "a") -> Job:
    return Job(request_id=name, payload=Generate(messages=(Message("user", "hi"),)))


def wait_for(engine: Engine, is_so: Callable[[Engine], bool], what: str) -> None:
    for _ in range(600):
        if is_so(engine):
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"not within 30 s: {what}")


def issue_of(engine: Engine) -> Issue:
    wait_for(engine, lambda one: one.info.slots_usable == 0, "it takes nothing")
    [issue] = engine.info.issues
    return issue


def sending(*data: bytes) -> Handler:
    async def answer(asked: Any) -> None:
        await asked.begin()
        for one in data:
            await asked.raw(one)

    return answer


BROKEN: dict[str, Handler] = {
    "it breaks off": breaking_off(),
    "it ends without an end": sending(b"data: {}\n\n"),
    "no events": sending(b"<html>\n"),
    "no JSON": sending(b"data: {nonsense\n\n"),
    "another shape": sending(b'data: {"choices": 7}\n\n'),
    "a line without end": sending(b"data: ", b"x" * (MAX_LINE + 1)),
    "an error in the stream": sending(b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'),
    "an old error in the stream": sending(b'error: {"message": "out of memory"}\n\ndata: {"error": "x"}\n\n'),
    "500": always({"error": {"message": "it failed", "type": "server_error"}}, 500),
    "502 in HTML": always("<html>Bad Gateway", 502),
    "no stream": always({"choices": [{"message": {"content": "whole"}}]}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_before_the_first_token_is_tried_again(server: FakeUpstream, run: EngineRun, name: str) -> None:
    server.routes[CHAT] = in_turn([BROKEN[name], telling("fine")])
    [outcome] = run.finish(chat_job())
    assert (outcome.num_preempted, outcome.text) == (1, "fine")
    assert run.engine.info.slots_usable == 2, "one request is no reason to think the server is down"


@pytest.mark.parametrize("name", ["it breaks off", "no JSON", "500"])
def test_not_for_ever(server: FakeUpstream, run: EngineRun, name: str) -> None:
    server.routes[CHAT] = BROKEN[name]
    [outcome] = run.finish(chat_job())
    assert outcome.num_preempted == MAX_TRIES - 1
    assert (outcome.rejected.code, outcome.rejected.status) == ("upstream_failed", 502)
    assert "send the request again" in outcome.rejected.message


def test_an_answer_that_breaks_off_goes_on_behind_what_is_out(server: FakeUpstream, run: EngineRun) -> None:
    server.routes[CHAT] = breaking_off("one ", "two ")
    server.routes["/v1/completions"] = telling("three")
    [outcome] = run.finish(chat_job())
    assert outcome.text == "one two three"
    assert server.generated()[1].body["prompt"] == "<user>hi<assistant>one two "
    assert outcome.done.usage.completion_tokens == 3


def test_raw_prompts_go_on_too_and_max_tokens_counts_from_the_first_attempt(
    server: FakeUpstream, run: EngineRun
) -> None:
    async def half(asked: Any) -> None:
        await asked.begin()
        await asked.event({"choices": [{"index": 0, "text": " upon"}]})
        asked.abort()

    server.routes["/v1/completions"] = in_turn([half, telling(" a", finish="length")])
    [outcome] = run.finish(make_job("a", "Once", max_tokens=2))
    assert outcome.text == " upon a"
    assert [(one.body["prompt"], one.body["max_tokens"]) for one in server.generated()] == [
        ("Once", 2),
        ("Once upon", 1),
    ]


def test_a_thought_goes_on_as_a_thought(server: FakeUpstream, run: EngineRun) -> None:
    async def half(asked: Any) -> None:
        await asked.begin()
        await asked.event(chunk({"reasoning_content": "I think"}))
        asked.abort()

    server.routes[CHAT] = in_turn([half, telling("other"), telling({"reasoning_content": " so."}, "Yes.")])
    [outcome] = run.finish(chat_job())
    assert outcome.text == "<think>I think so.\n</think>\n\nYes."
    assert server.generated()[2].body["messages"][-1] == {
        "role": "assistant", "content": "", "reasoning_content": "I think",
    }  # fmt: skip


@pytest.mark.parametrize("told", [["one two three"], ["one ", "two ", "three"], ["one tw", "o three"]])
def test_what_a_server_tells_again_is_told_once(server: FakeUpstream, run: EngineRun, told: list[str]) -> None:
    """Some versions of llama-server begin with the message that they continue: a trial of one token says so."""
    del server.routes["/apply-template"]
    half, trial = breaking_off("one ", "two "), telling("The word is trial and error")
    server.routes[CHAT] = in_turn([half, trial, telling(*told)])
    assert run.finish(chat_job())[0].text == "one two three"


def test_an_answer_that_would_become_another_ends(server: FakeUpstream, run: EngineRun) -> None:
    del server.routes["/apply-template"]
    half, trial = breaking_off("one ", "two "), telling("The word is trial and error")
    server.routes[CHAT] = in_turn([half, trial, telling("one, two, three")])
    [outcome] = run.finish(chat_job())
    assert (outcome.text, outcome.rejected.code) == ("one two ", "upstream_failed")


def test_a_server_that_begins_its_answers_itself_tells_nothing_twice(new_run: NewRun) -> None:
    with FakeUpstream(slots=None, owner="somebody") as plain:
        plain.routes[CHAT] = breaking_off("one ")
        run = new_run(url=plain.url, slots=1)
        [outcome] = run.finish(chat_job())
        assert outcome.text == "one "
        assert outcome.rejected.code == "upstream_failed"
        assert "cannot go on with an answer in the middle: send the request again" in outcome.rejected.message
        assert len(plain.generated()) == 1
        run.engine.close()


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, {"message": "no such thing", "param": "top_k"}, "invalid_field"),
        (400, {"message": "too long", "type": "exceed_context_size_error"}, "context_length_exceeded"),
        (400, {"message": "This model's maximum context length is 9 tokens"}, "context_length_exceeded"),
        (422, {"message": "no"}, "invalid_field"),
        (413, {"message": "too large"}, "invalid_field"),
    ],
)
def test_what_is_wrong_with_a_request_is_told_to_its_client(
    server: FakeUpstream, run: EngineRun, status: int, error: dict[str, str], code: str
) -> None:
    server.routes[CHAT] = always({"error": error}, status)
    [outcome] = run.finish(chat_job())
    assert (outcome.rejected.code, outcome.rejected.status) == (code, 400)
    assert outcome.rejected.message == error["message"]
    assert outcome.rejected.param == error.get("param")
    assert outcome.num_preempted == 0


def test_fastapis_words_are_understood(server: FakeUpstream, run: EngineRun) -> None:
    server.routes[CHAT] = always({"detail": [{"loc": ["body"], "msg": "field required"}]}, 422)
    assert "field required" in run.finish(chat_job())[0].rejected.message


def test_429_waits_as_long_as_it_is_told(server: FakeUpstream, run: EngineRun) -> None:
    server.routes[CHAT] = in_turn([always({"error": "slow down"}, 429, retry_after="2"), telling("fine")])
    outcome = run.start(chat_job())
    run.step_until(lambda: outcome.num_preempted == 1)
    assert run.engine.info.slots_usable == 0
    assert run.engine.info.issues == (), "nobody has to do anything about it"
    wait_for(run.engine, lambda one: one.info.slots_usable == 2, "its time is over")


def test_a_server_that_is_gone_comes_back_by_itself(server: FakeUpstream, run: EngineRun) -> None:
    server.stop()
    outcome = run.start(chat_job())
    run.step_until(lambda: outcome.num_preempted == 1)
    assert run.engine.info.slots_usable == 0, "at once, not with the next look"
    issue = issue_of(run.engine)
    assert issue.kind == "UpstreamUnreachable"
    assert server.url in issue.detail
    assert "--upstream" in issue.remedy
    server.start()
    wait_for(run.engine, lambda one: one.info.slots_usable == 2, "it takes requests again")
    assert run.engine.info.issues == ()


def test_a_key_that_is_refused_is_read_again(server: FakeUpstream, new_run: NewRun, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sesame\n")
    server.key = "sesame"
    run = new_run(key_file=file)
    server.key = "other"
    issue = issue_of(run.engine)
    assert issue.kind == "UpstreamKeyRefused"
    assert "--upstream-api-key-file" in issue.remedy
    assert "sesame" not in f"{issue}"
    file.write_text("other")
    wait_for(run.engine, lambda one: one.info.slots_usable == 2, "it has the new key")


def test_a_route_that_is_gone_is_an_issue_until_it_is_back(server: FakeUpstream, run: EngineRun) -> None:
    route = server.routes.pop(CHAT)
    outcome = run.start(chat_job())
    run.step_until(lambda: outcome.num_preempted == 1)
    issue = issue_of(run.engine)
    assert (issue.kind, issue.detail) == ("UpstreamEndpointOff", f"{CHAT} answers 404")
    server.routes[CHAT] = route
    wait_for(run.engine, lambda one: one.info.slots_usable == 2, "it is back")


def test_slots_that_others_use_are_not_taken(server: FakeUpstream, run: EngineRun) -> None:
    server.num_busy = 1
    wait_for(run.engine, lambda one: one.info.slots_usable == 1, "one is left")
    server.num_busy = 0
    wait_for(run.engine, lambda one: one.info.slots_usable == 2, "both are free")


def test_our_own_slots_are_not_others(server: FakeUpstream, run: EngineRun) -> None:
    server.routes[CHAT] = for_ever("x")
    outcome = run.start(chat_job())
    run.step_until(lambda: bool(outcome.ids))
    server.num_busy = 2
    wait_for(run.engine, lambda one: one.info.slots_usable == 1, "only one of two busy ones is another's")
    server.num_busy = 1
    wait_for(run.engine, lambda one: one.info.slots_usable == 2, "the busy one is ours")


def test_a_llama_server_that_hides_its_slots_is_watched_by_health(server: FakeUpstream, new_run: NewRun) -> None:
    server.routes["/slots"] = always({"error": {"message": "Start it with `--slots`"}}, 501)
    run = new_run()
    assert run.engine.info.slots_usable == 2, "it serves"
    [issue] = run.engine.info.issues
    assert (issue.kind, "does not show its slots" in issue.detail) == ("UpstreamEndpointOff", True)
    server.routes["/health"] = always({"error": {"message": "Loading model"}}, 503)
    wait_for(run.engine, lambda one: one.info.slots_usable == 0, "health says so")
    assert [one.kind for one in run.engine.info.issues] == ["UpstreamUnreachable"]


def test_a_server_that_falls_silent(server: FakeUpstream, new_run: NewRun) -> None:
    server.routes[CHAT] = in_turn([for_ever(), telling("fine")])
    run = new_run(timeout_s=0.3)
    [outcome] = run.finish(chat_job())
    assert (outcome.num_preempted, outcome.text) == (1, "fine")


def refusing(status: int) -> dict[str, Handler | None]:
    return {path: always({"error": "no"}, status) for path in ("/props", "/slots", "/v1/models", CHAT)}


@pytest.mark.parametrize(
    ("routes", "settings", "kind", "says"),
    [
        (refusing(401), {}, "UpstreamKeyRefused", "answers 401"),
        (refusing(503), {}, "UpstreamUnreachable", "answers 503"),
        ({CHAT: None, "/v1/completions": None}, {}, "UpstreamEndpointOff", "offers none of"),
        ({}, {"model": "gpt-9"}, "SettingsInvalid", "there is: /models/tiny.gguf. Correct --upstream-model"),
        ({}, {"key_file": Path("/nowhere/key")}, "UpstreamKeyRefused", "/nowhere/key"),
        (
            {"/v1/models": always({"data": [{"id": "a"}, {"id": "b"}]})},
            {},
            "SettingsInvalid",
            "has 2 models (a, b): name the one to serve with --upstream-model",
        ),
    ],
)
def test_an_agent_that_cannot_begin_says_why(
    server: FakeUpstream,
    new_engine: Callable[..., Engine],
    routes: dict[str, Handler | None],
    settings: dict[str, Any],
    kind: str,
    says: str,
) -> None:
    server.routes |= routes
    with pytest.raises(ModelError) as refused:
        new_engine(**settings)
    assert refused.value.kind == kind
    assert says in str(refused.value)


def test_a_server_that_does_not_say_how_many_slots_it_has(new_engine: Callable[..., Engine]) -> None:
    with FakeUpstream(slots=None, owner="somebody") as plain, pytest.raises(ModelError, match="say it with --slots"):
        new_engine(url=plain.url)


def test_nobody_there(new_engine: Callable[..., Engine]) -> None:
    with FakeUpstream() as gone:
        gone.stop()
        with pytest.raises(ModelError, match="cannot be reached") as refused:
            new_engine(url=gone.url)
    assert refused.value.kind == "UpstreamUnreachable"
