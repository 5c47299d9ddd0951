"""One request on its agent, as a pure object: what it would send next."""

from __future__ import annotations

import pytest

from paddler.engine import Done, Embedded, Event, Preempted, Progress, Rejected, Retained, Working
from paddler.errors import EngineFailed
from paddler.store.results import Outcome
from paddler.wire.agent import Embed, Generate
from paddler.wire.balancer import (
    Finished,
    FinishReason,
    Opened,
    Prefilled,
    TextFormat,
    TokenLogprob,
    Tokens,
    Usage,
    Vectors,
    decode_frames,
    encode_frame,
)
from workers.agent.running import Running

OPENED = encode_frame(Opened("agent", 1))


def test_what_a_cancelled_request_still_says_does_not_follow_a_gap() -> None:
    """Found by the chaos run: tokens that Redis had refused were forgotten, the step under way added the next one."""
    running = Running("r", 1, OPENED)
    running.take_event(Progress("r", (1, 2), "one two "))
    refused = running.emission()
    assert refused is not None
    running.discard()
    running.take_event(Progress("r", (3,), "three "))
    assert running.emission() is None
    running.take_event(Done("r", FinishReason.CANCELLED, running.usage, "held back"))
    last = running.emission()
    assert last is not None
    assert [type(frame) for frame in decode_frames(last.frames)] == [Finished]
    assert (last.offset, running.is_last, running.outcome) == (len(OPENED), True, Outcome.CANCELLED)


def test_what_redis_forgot_is_sent_again_from_there() -> None:
    running = Running("r", 1, OPENED)
    for token in (1, 2):
        running.take_event(Progress("r", (token,), f"{token} "))
        sent = running.emission()
        assert sent is not None
        running.confirm(sent.offset + len(sent.frames))
    assert running.is_confirmed
    running.confirm(len(OPENED))
    again = running.emission()
    assert again is not None
    assert list(decode_frames(again.frames)) == [Tokens((1,), "1 "), Tokens((2,), "2 ")]


def test_the_format_of_a_text_is_told_before_it() -> None:
    running = Running("r", 1, OPENED)
    format = TextFormat("hermes", "think", True)
    running.take_event(Retained("r", 7, 7, 2, format))
    running.take_event(Progress("r", (1,), "one "))
    sent = running.emission()
    assert sent is not None
    assert list(decode_frames(sent.frames)) == [Prefilled(7, 2, format), Tokens((1,), "one ")]


def test_log_probabilities_go_with_their_tokens() -> None:
    running = Running("r", 1, OPENED)
    one, two = TokenLogprob(b"one ", -0.5), TokenLogprob(b"two", -1.0, ((b"too", -0.5),))
    running.take_event(Progress("r", (1,), "one ", logprobs=(one,)))
    running.take_event(Progress("r", (2,), "", logprobs=(two,)))
    sent = running.emission()
    assert sent is not None
    assert list(decode_frames(sent.frames)) == [Tokens((1, 2), "one ", None, (one, two))]
    running.confirm(sent.offset + len(sent.frames))
    running.take_event(Progress("r", (3,), "two three"))
    again = running.emission()
    assert again is not None
    assert list(decode_frames(again.frames)) == [Tokens((3,), "two three")]


def test_the_next_agent_gets_the_state_of_mirostat_as_it_was_behind_the_last_token() -> None:
    running = Running("r", 1, OPENED)
    running.take_event(Progress("r", (1,), "one ", 9.5))
    running.take_event(Progress("r", (2,), "", 8.25))
    sent = running.emission()
    assert sent is not None
    assert list(decode_frames(sent.frames)) == [Tokens((1, 2), "one ", 8.25)]
    job = Running("r", 2, OPENED + sent.frames + encode_frame(Opened("other", 2))).job(Generate(prompt="p"))
    assert (job.resume_ids, job.resume_mu) == ((1, 2), 8.25)


def test_the_end_says_which_stop_string_it_was() -> None:
    running = Running("r", 1, OPENED)
    running.take_event(Done("r", FinishReason.STOP, Usage(3, 3), "the end", stop="."))
    sent = running.emission()
    assert sent is not None
    assert list(decode_frames(sent.frames)) == [Tokens((), "the end"), Finished(FinishReason.STOP, Usage(3, 3), ".")]


@pytest.mark.parametrize(
    "event",
    [
        Done("r", FinishReason.STOP, Usage(3, 3), "the end", stop="."),
        Done("r", FinishReason.LENGTH, Usage(3, 3)),
        Rejected("r", "engine_failed", "no", 500),
        Preempted("r"),
    ],
    ids=["stop", "length", "rejected", "preempted"],
)
def test_whatever_the_engine_makes_of_a_cancelled_request_it_ends_as_cancelled(event: Event) -> None:
    """Found in review: it was settled as done, with text missing, when the engine came to its end in the same step."""
    running = Running("r", 1, OPENED)
    running.take_event(Progress("r", (1, 2), "one two "))
    assert running.emission() is not None
    running.discard()
    running.take_event(event)
    last = running.emission()
    assert last is not None
    (frame,) = decode_frames(last.frames)
    assert isinstance(frame, Finished)
    assert frame.reason is FinishReason.CANCELLED
    assert (running.is_last, running.is_preempted, running.outcome) == (True, False, Outcome.CANCELLED)


def test_vectors_gather_while_a_call_is_under_way_and_another_attempt_goes_on_behind_them() -> None:
    running = Running("r", 1, OPENED)
    running.take_event(Embedded("r", (bytes(8),), (0,)))
    first = running.emission()
    assert first is not None
    for number in (1, 2):
        running.take_event(Embedded("r", (bytes([number]),), (number,)))
    assert running.emission() == first, "repeated byte for byte until it is answered"
    running.confirm(first.offset + len(first.frames))
    assert not running.is_confirmed
    running.take_event(Done("r", FinishReason.STOP, Usage(3)))
    last = running.emission()
    assert last is not None
    vectors, end = decode_frames(last.frames)
    assert (vectors, end) == (Vectors((b"\1", b"\2"), (1, 2)), Finished(FinishReason.STOP, Usage(3)))

    job = Running("r", 2, OPENED + first.frames + OPENED).job(Embed(inputs=("a", "b", "c")))
    assert job.embedded == (0,)
    assert job.vector_size == 2


def test_a_sign_of_life_says_nothing_else() -> None:
    running = Running("r", 1, OPENED)
    running.take_event(Working("r"))
    sign = running.emission()
    assert sign is not None
    assert list(decode_frames(sign.frames)) == [Vectors((), ())]
    running.confirm(sign.offset + len(sign.frames))
    assert running.emission() is None
    job = Running("r", 2, OPENED + sign.frames).job(Embed(inputs=("a",)))
    assert (job.embedded, job.vector_size) == ((), 0)
    job = Running("r", 2, OPENED + sign.frames).job(Generate(prompt="a"))
    assert (job.resume_ids, job.resume_text) == ((), "")


def test_what_fails_is_charged_by_what_was_computed() -> None:
    running = Running("r", 1, OPENED)
    running.take_event(Embedded("r", (b"1",), (7,)))
    running.take_event(Rejected("r", "engine_failed", "no", 500, usage=Usage(prompt_tokens=7)))
    assert (running.outcome, running.usage.prompt_tokens) == (Outcome.FAILED, 7)


def test_vectors_of_a_cancelled_request_do_not_follow_a_gap() -> None:
    running = Running("r", 1, OPENED)
    running.take_event(Embedded("r", (b"1",), (1,)))
    running.discard()
    running.take_event(Embedded("r", (b"2",), (1,)))
    assert running.emission() is None


SPOKEN = encode_frame(Opened("agent", 1, "theirs", "their weights")) + encode_frame(Tokens((7, 8), "seven", 1.5))


def test_tokens_of_another_vocabulary_are_worth_their_text() -> None:
    job = Running("r", 2, SPOKEN + encode_frame(Opened("other", 2, "ours", ""))).job(
        Generate(prompt="p"), vocabulary="ours"
    )
    assert (job.resume_ids, job.resume_text, job.resume_text_length) == ((), "seven", 5)
    assert (job.num_resumed, job.resume_mu) == (2, None)


@pytest.mark.parametrize("ours", ["theirs", ""])
def test_tokens_of_the_same_or_an_untold_one_are_taken_as_they_are(ours: str) -> None:
    job = Running("r", 2, SPOKEN).job(Generate(prompt="p"), vocabulary=ours)
    assert (job.resume_ids, job.resume_text, job.num_foreign, job.resume_mu) == ((7, 8), "seven", 0, 1.5)


def test_once_retold_it_stays_text() -> None:
    """The third agent speaks as the first, but what the second has said means something else to it."""
    second = encode_frame(Opened("second", 2, "ours", "")) + encode_frame(Tokens((1,), " eight"))
    job = Running("r", 3, SPOKEN + second).job(Generate(prompt="p"), vocabulary="theirs")
    assert (job.resume_ids, job.resume_text, job.num_resumed) == ((), "seven eight", 3)


def test_vectors_of_two_models_do_not_go_together() -> None:
    begun = encode_frame(Opened("agent", 1, "v", "theirs")) + encode_frame(Vectors((b"\0" * 8,), (3,)))
    running = Running("r", 2, begun)
    assert running.job(Embed(inputs=("a", "b")), vocabulary="v", weights="theirs").embedded == (3,)
    with pytest.raises(EngineFailed, match="vectors of two models"):
        running.job(Embed(inputs=("a", "b")), vocabulary="v", weights="ours")
