"""One request on its agent, as a pure object: what it would send next."""

from __future__ import annotations

from paddler.engine import Done, Progress
from paddler.store.results import Outcome
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens, decode_frames, encode_frame
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
