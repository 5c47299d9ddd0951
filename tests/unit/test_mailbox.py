"""The receiving end of one request: whatever the network does, the reader sees the journal, once and in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.errors import ItemTimeout, RequestLost
from paddler.jobs.mailbox import MAX_PENDING, Fed, Mailbox
from paddler.wire.balancer import Failed, Finished, FinishReason, Frame, Tokens, encode_frame

STREAM: list[Frame] = [*(Tokens((n,), f"t{n}") for n in range(8)), Finished(FinishReason.STOP)]
PIECES = [encode_frame(frame) for frame in STREAM]
JOURNAL = b"".join(PIECES)
STARTS = [len(b"".join(PIECES[:n])) for n in range(len(PIECES) + 1)]


def mailbox() -> Mailbox:
    return Mailbox("default.x", now=0.0, start_deadline=None)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), max_size=30))
def test_any_order_loss_or_repeat_gives_the_stream(deliveries: list[tuple[int, int]]) -> None:
    box = mailbox()
    got: list[Frame] = []
    for first, count in deliveries:
        box.feed(STARTS[first], b"".join(PIECES[first : first + count]), 0.0)
        got += box.take()
    # What is missing is read from the journal at the mailbox's own offset.
    box.feed(box.offset, JOURNAL[box.offset :], 0.0)
    got += box.take()
    assert got == STREAM
    assert box.is_ended


def test_a_gap_asks_for_the_journal_at_once() -> None:
    box = mailbox()
    assert box.feed(STARTS[2], PIECES[2], 5.0) is Fed.GAP
    assert box.is_check_due(5.0)
    assert box.take() == []
    assert box.feed(0, JOURNAL[: STARTS[3]], 5.0) is Fed.ACCEPTED
    assert box.feed(STARTS[1], PIECES[1], 5.0) is Fed.REPEATED
    assert box.take() == STREAM[:3]


@given(st.sampled_from(STARTS[1:]), st.integers(0, len(JOURNAL) - 1), st.data())
def test_a_journal_that_went_on_in_another_way_ends_the_stream(had: int, at: int, data: st.DataObject) -> None:
    """Redis lost its end after it was forwarded, and an agent wrote another one: nothing of it is passed on."""
    box = mailbox()
    box.feed(0, JOURNAL[:had], 0.0)
    changed = min(at, had - 1)
    other = JOURNAL[:changed] + bytes([JOURNAL[changed] ^ 1]) + JOURNAL[changed + 1 :]
    first = data.draw(st.sampled_from([start for start in STARTS if start <= changed]))
    assert box.feed(first, other[first:], 0.0) is Fed.DIVERGED
    assert box.take() == STREAM[: STARTS.index(had)]
    if not box.is_ended:
        with pytest.raises(RequestLost):
            box.take()


def test_the_bytes_at_hand_to_mend_a_journal() -> None:
    box = mailbox()
    box.feed(0, JOURNAL, 0.0)
    assert box.tail_offset == 0
    assert all(box.since(start) == JOURNAL[start:] for start in STARTS)
    assert box.since(len(JOURNAL) + 1) is None
    follower = Mailbox("default.x", now=0.0, start_deadline=None, offset=STARTS[3])
    follower.feed(0, JOURNAL, 0.0)
    assert follower.since(STARTS[2]) is None, "it never had them"
    assert follower.take() == STREAM[3:]


def test_silence_is_checked_less_and_less_often() -> None:
    box = mailbox()
    due: list[float] = []
    for tenth in range(1, 400):
        now = tenth / 10
        if box.is_check_due(now):
            due.append(now)
            box.checked(now)
    assert due[:4] == [1.0, 3.0, 7.0, 15.0]
    assert due[4] - due[3] == 8.0


def test_a_slow_reader_holds_a_bounded_number_of_bytes() -> None:
    box = mailbox()
    big = encode_frame(Tokens((1,), "x" * (MAX_PENDING // 2)))
    offset = 0
    fed: list[Fed] = []
    for _ in range(4):
        fed.append(box.feed(offset, big, 0.0))
        offset += len(big)
    assert fed == [Fed.ACCEPTED, Fed.ACCEPTED, Fed.GAP, Fed.GAP]
    assert not box.is_check_due(9.0), "reading the journal would not help before the reader has"
    assert len(box.take()) == 2
    assert box.is_check_due(9.0)


def test_frames_received_before_a_failure_are_read_first() -> None:
    box = mailbox()
    box.feed(0, PIECES[0], 0.0)
    box.fail(ItemTimeout("late"))
    assert box.take() == STREAM[:1]
    with pytest.raises(ItemTimeout):
        box.take()


def test_the_first_failure_is_seen_without_reading() -> None:
    box = mailbox()
    failed = Failed("engine_failed", "no", 500)
    box.feed(0, encode_frame(failed), 0.0)
    assert box.first_failure() == failed
    assert box.take() == [failed]
