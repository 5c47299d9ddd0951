"""From samples to figures."""

from __future__ import annotations

from typing import Any

import pytest

from paddler.bench.goals import OF_STREAMS, Goal, Measure, read_goal
from paddler.bench.report import Measured, compare
from paddler.bench.run import Run
from paddler.bench.samples import Failure, Outcome, Sample
from paddler.bench.shown import facts, rounds_told
from paddler.bench.summary import Summary, in_flight, summarise


def sample(due: float, first: float, end: float, *, outcome: Outcome = Outcome.OK, **fields: Any) -> Sample:
    """Ten tokens, in one chunk at `first` and one at `end`; it was sent when it was due."""
    known: dict[str, Any] = {"sent_s": due, "output_tokens": 10, "has_usage": True, "prompt_tokens": 100}
    made = Sample(conversation=0, turn=0, scheduled_s=due, outcome=outcome, **known | fields)
    made.chunk_arrived(first)
    made.chunk_arrived(end)
    made.end_s = end
    return made


def summary(*samples: Sample, goals: tuple[Goal, ...] = (), warmup_s: float = 0.0, **fields: Any) -> Summary:
    return summarise(Run(samples=list(samples), **fields), goals, warmup_s)


def test_latencies_count_from_when_a_request_was_due() -> None:
    late = sample(1.0, 3.0, 4.0, sent_s=2.5)
    assert (late.ttft_s, late.e2e_s) == (2.0, 3.0)
    found = summary(late)
    assert found.ttft_ms is not None
    assert found.ttft_ms.p50 == pytest.approx(2000)
    assert found.send_lag_ms is not None
    assert found.send_lag_ms.max == pytest.approx(1500), "and what of it is the generator's own is told"


def test_the_time_of_a_token_is_over_all_but_the_first_however_they_came() -> None:
    assert sample(0.0, 1.0, 2.8).itl_s == pytest.approx(0.2)
    assert sample(0.0, 1.0, 2.8, output_tokens=1).itl_s is None
    at_once = Sample(conversation=0, turn=0, scheduled_s=0.0, sent_s=0.0, output_tokens=10)
    at_once.chunk_arrived(1.0)
    assert at_once.itl_s is None, "no time is the best of all, and was not measured"
    found = summary(sample(0.0, 1.0, 2.8))
    assert found.gap_ms is not None
    assert found.gap_ms.max == pytest.approx(1800), "what a reader saw is told beside it"


def test_percentiles() -> None:
    found = summary(*(sample(0.0, number / 100, 2.0) for number in range(1, 101)))
    assert found.ttft_ms is not None
    told = (found.ttft_ms.count, found.ttft_ms.min, found.ttft_ms.p50, found.ttft_ms.p99, found.ttft_ms.max)
    assert told == pytest.approx((100, 10, 505, 990.1, 1000))
    assert found.ttft_ms.mean == pytest.approx(505)


def test_failures_are_counted_by_kind_and_are_in_no_latency() -> None:
    bad = [sample(0.0, 9.0, 9.0, outcome=Outcome.FAILED) for _ in range(3)]
    for one, kind in zip(bad, ("status 503", "status 503", "timeout"), strict=True):
        one.fail(Failure(kind, f"about {kind}"))
    found = summary(sample(0.0, 1.0, 2.0), *bad)
    assert (found.num_requests, found.num_ok, found.num_failed) == (4, 1, 3)
    assert found.errors == {"status 503": 2, "timeout": 1}
    assert found.error_examples == {"status 503": "about status 503", "timeout": "about timeout"}
    assert found.ttft_ms is not None
    assert found.ttft_ms.max == pytest.approx(1000)


def test_goodput_is_the_share_that_keeps_every_goal() -> None:
    samples = [sample(0.0, 1.0, 1.9), sample(0.0, 3.0, 3.9), sample(0.0, 1.0, 10.0)]
    failed = sample(0.0, 0.1, 0.2, outcome=Outcome.FAILED)
    left = sample(0.0, 0.1, 0.2, outcome=Outcome.CANCELLED)
    found = summary(*samples, failed, left, goals=(Goal(Measure.TTFT, 2000), Goal(Measure.ITL, 100)))
    assert found.goodput is not None
    assert (found.goodput.num_good, found.goodput.share) == (1, 0.25)
    assert found.goodput.requests_s == pytest.approx(1 / 10)


def test_a_stream_without_a_text_misses_the_goals_of_streams() -> None:
    empty = Sample(conversation=0, turn=0, scheduled_s=0.0, sent_s=0.0, end_s=9.0, outcome=Outcome.OK)
    for measure in OF_STREAMS:
        found = summary(empty, goals=(Goal(measure, 60_000),))
        assert found.goodput is not None
        assert found.goodput.num_good == 0, measure
    one_token = sample(0.0, 1.0, 1.0, output_tokens=1)
    one_token.gaps_s.clear()
    found = summary(empty, one_token, goals=(Goal(Measure.E2E, 9000), Goal(Measure.ITL, 1)))
    assert found.goodput is not None
    assert found.goodput.num_good == 1, "a single token has no time that could miss any"


def test_a_request_that_was_to_be_left_is_in_no_latency_and_no_goodput() -> None:
    """Slower ones are cancelled: those that end in time would make all look as quick."""
    quick = [sample(0.0, 0.1, 0.2, is_left=True) for _ in range(9)]
    failed = sample(0.0, 0.1, 0.2, is_left=True, outcome=Outcome.FAILED)
    found = summary(sample(0.0, 1.0, 4.0), *quick, failed, goals=(Goal(Measure.E2E, 1000),))
    assert (found.num_ok, found.num_failed) == (10, 1)
    for latency, lowest in (
        (found.ttft_ms, 1000),
        (found.itl_ms, 3000 / 9),
        (found.gap_ms, 3000),
        (found.e2e_ms, 4000),
    ):
        assert latency is not None
        assert (latency.count, latency.min) == (1, pytest.approx(lowest))
    assert found.goodput is not None
    assert (found.goodput.num_good, found.goodput.share) == (0, 0.0)


def test_hits_are_of_those_who_tell() -> None:
    told = [sample(0.0, 1.0, 2.0, cached_tokens=number) for number in (80, 0)]
    found = summary(*told, sample(0.0, 1.0, 2.0))
    assert (found.num_told_cache, found.cached_tokens, found.hit_rate) == (2, 80, 0.4)
    assert dict(facts(found))["cache hits"] == "40.0% of 200 prompt tokens"
    assert summary(sample(0.0, 1.0, 2.0)).hit_rate is None


def test_the_warm_up_is_not_counted() -> None:
    found = summary(sample(0.5, 9.0, 9.0), sample(2.0, 2.5, 4.0), warmup_s=1.0)
    assert (found.num_requests, found.window_s) == (1, 3.0)
    assert found.requests_s == pytest.approx(1 / 3)


def test_a_run_without_an_answer_has_no_latencies() -> None:
    found = summary(sample(0.0, 1.0, 1.0, outcome=Outcome.UNFINISHED), end_s=2.0, is_stopped=True)
    assert (found.ttft_ms, found.itl_ms, found.hit_rate, found.num_unfinished) == (None, None, None, 1)
    assert summary().num_requests == 0


def test_how_many_are_under_way() -> None:
    samples = [sample(0.0, 1.0, 2.0), sample(1.0, 1.5, 4.0)]
    assert in_flight(samples, 9.0) == [(0.0, 1), (1.0, 2), (2.0, 1), (4.0, 0)]
    found = summary(*samples)
    assert (found.max_in_flight, found.mean_in_flight) == (2, pytest.approx(1.25))


def measured(label: str, *ttfts_s: float) -> Measured:
    rounds = [summary(sample(0.0, ttft, ttft + 1)) for ttft in ttfts_s]
    return Measured(label=label, url=label, model="m", rounds=rounds)


def test_targets_are_compared_by_the_ratio_of_medians_over_the_rounds() -> None:
    found = {row.figure: row for row in compare([measured("a", 1.0, 2.0, 9.0), measured("b", 4.0, 4.0, 3.0)])}
    row = found["TTFT mean"]
    assert row.medians == pytest.approx([2000, 4000])
    assert (row.ratios, row.lowest, row.highest) == ([0.5], [0.25], [3.0])
    assert found["failed"].ratios == [None], "nothing is divided by no errors"
    assert "goodput" not in found, "nobody asked for it"


def test_rounds_that_not_all_have_are_left_out_of_the_comparison() -> None:
    (row,) = (row for row in compare([measured("a", 1.0, 5.0), measured("b", 2.0)]) if row.figure == "TTFT p50")
    assert row.medians == pytest.approx([1000, 2000])
    assert compare([measured("a", 1.0)]) == []
    assert compare([measured("a", 1.0), measured("b")]) == []


def test_a_round_that_was_stopped_is_compared_with_nothing() -> None:
    one, two = measured("a", 1.0, 5.0), measured("b", 2.0)
    two.rounds.append(summary(sample(0.0, 9.0, 10.0), end_s=10.0, is_stopped=True))
    (row,) = (row for row in compare([one, two]) if row.figure == "TTFT p50")
    assert row.medians == pytest.approx([1000, 2000])
    assert rounds_told([one, two]) == "1 round"
    two.rounds = two.rounds[1:]
    assert compare([one, two]) == []


@pytest.mark.parametrize("text", ["ttft", "ttft:", "ttft:0", "ttft:-1", "nonsense:5", "ttft:fast", "ttft:nan"])
def test_what_is_no_goal_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="such as ttft:2000; measures are ttft, itl, gap, e2e"):
        read_goal(text)
