"""Service level objectives: what a request must keep to count as good."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from paddler.bench.samples import Sample


class Measure(StrEnum):
    TTFT = "ttft"
    ITL = "itl"
    GAP = "gap"
    """The longest between two chunks: what a reader sees as a pause."""
    E2E = "e2e"


OF_STREAMS = (Measure.TTFT, Measure.ITL, Measure.GAP)


class Goal(Struct, frozen=True):
    measure: Measure
    at_most_ms: float

    def __str__(self) -> str:
        return f"{self.measure}:{self.at_most_ms:g}"


def read_goal(text: str) -> Goal:
    """`ttft:2000`. Raises `ValueError`."""
    name, colon, number = text.partition(":")
    try:
        goal = Goal(Measure(name), float(number))
    except ValueError:
        goal = None
    if goal is None or not colon or not 0 < goal.at_most_ms < 1e9:
        raise ValueError(f"{text!r} is not MEASURE:MS, such as ttft:2000; measures are {', '.join(Measure)}")
    return goal


def value_s(measure: Measure, sample: Sample) -> float | None:
    """None where the request has none: a single token, or all of them in one chunk, have no time between them."""
    match measure:
        case Measure.TTFT:
            return sample.ttft_s
        case Measure.ITL:
            return sample.itl_s
        case Measure.GAP:
            return max(sample.gaps_s, default=None)
        case Measure.E2E:
            return sample.e2e_s


def is_good(sample: Sample, goals: tuple[Goal, ...]) -> bool:
    """One that failed is not. A stream in which nothing came has missed each goal of streams; one chunk alone has no
    time after it that could miss any."""
    return sample.is_ok and all(_is_kept(goal, sample) for goal in goals)


def _is_kept(goal: Goal, sample: Sample) -> bool:
    if goal.measure in OF_STREAMS and sample.first_s is None:
        return False
    value = value_s(goal.measure, sample)
    return value is None or value * 1e3 <= goal.at_most_ms
