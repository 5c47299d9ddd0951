"""What `--output` writes: everything measured, by target and round, and with several targets how they compare."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct, field

from paddler.bench.samples import Sample
from paddler.bench.summary import Summary

VERSION = 1


class Figure(Struct, frozen=True):
    """One that targets are compared by. `read` gives None where it was not measured."""

    name: str
    unit: str
    is_more_better: bool
    read: Callable[[Summary], float | None]


def _of(path: str) -> Callable[[Summary], float | None]:
    group, _, name = path.partition(".")

    def read(summary: Summary) -> float | None:
        found = getattr(summary, group)
        return found if not name or found is None else attrgetter(name)(found)

    return read


FIGURES = (
    Figure("TTFT mean", "ms", False, _of("ttft_ms.mean")),
    Figure("TTFT p50", "ms", False, _of("ttft_ms.p50")),
    Figure("TTFT p95", "ms", False, _of("ttft_ms.p95")),
    Figure("TTFT p99", "ms", False, _of("ttft_ms.p99")),
    Figure("ITL p50", "ms", False, _of("itl_ms.p50")),
    Figure("ITL p99", "ms", False, _of("itl_ms.p99")),
    Figure("end to end p50", "ms", False, _of("e2e_ms.p50")),
    Figure("end to end p99", "ms", False, _of("e2e_ms.p99")),
    Figure("requests", "/s", True, _of("requests_s")),
    Figure("output tokens", "/s", True, _of("output_tokens_s")),
    Figure("goodput", "of requests", True, _of("goodput.share")),
    Figure("cache hits", "of tokens", True, _of("hit_rate")),
    Figure("failed", "requests", False, _of("num_failed")),
)


class Ratio(Struct, frozen=True):
    """Medians over the rounds, and that of the first target over each other one's; `lowest` and `highest` are what
    single rounds gave. None where nothing can be divided."""

    figure: str
    unit: str
    is_more_better: bool
    medians: list[float | None]
    ratios: list[float | None]
    lowest: list[float | None]
    highest: list[float | None]


class Measured(Struct, kw_only=True):
    label: str
    url: str
    model: str
    rounds: list[Summary] = field(default_factory=list[Summary])


class Report(Struct, kw_only=True):
    """`options` are those of the command, headers by their names alone; `seed` is the one that was given, or drawn;
    `begun_at` is ISO 8601 in UTC.
    `tokens_per_word` is what the texts were made for, `is_tokens_measured` that the first target was asked for it."""

    version: int = VERSION
    paddler: str
    begun_at: str
    host: str
    seed: int
    options: dict[str, Any]
    tokens_per_word: float
    is_tokens_measured: bool
    targets: list[Measured]
    comparison: list[Ratio] = []
    is_stopped: bool = False


class Series(Struct):
    """The samples of one target behind a report: of each round."""

    label: str
    rounds: list[list[Sample]] = field(default_factory=list[list[Sample]])


def num_compared(targets: Sequence[Measured]) -> int:
    """The rounds that all of them have whole: one that was stopped has fewer requests than that of the others."""
    return min((sum(not one.is_stopped for one in target.rounds) for target in targets), default=0)


def compare(targets: Sequence[Measured]) -> list[Ratio]:
    """Of the rounds that all of them have whole; nothing with one target."""
    num_rounds = num_compared(targets)
    if len(targets) < 2 or not num_rounds:
        return []
    found: list[Ratio] = []
    for figure in FIGURES:
        values = [[figure.read(one) for one in target.rounds[:num_rounds]] for target in targets]
        medians = [median(row) for row in values]
        if all(value is None for value in medians):
            continue
        single = [[_ratio(ours, theirs) for ours, theirs in zip(values[0], row, strict=True)] for row in values[1:]]
        known = [[value for value in row if value is not None] for row in single]
        found.append(
            Ratio(
                figure.name,
                figure.unit,
                figure.is_more_better,
                medians,
                [_ratio(medians[0], other) for other in medians[1:]],
                [min(row, default=None) for row in known],
                [max(row, default=None) for row in known],
            )
        )
    return found


def median(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs
