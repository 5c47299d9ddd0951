"""A run in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from paddler.bench.goals import Goal, is_good
from paddler.bench.run import Run
from paddler.bench.samples import Outcome, Sample


class Distribution(Struct, frozen=True):
    """Percentiles are interpolated between the two nearest values (numpy's `linear`)."""

    count: int
    mean: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Goodput(Struct, frozen=True):
    """`share` is of the requests that were to end by themselves, and did; failed ones included."""

    goals: list[str]
    num_good: int
    share: float
    requests_s: float


class Summary(Struct, kw_only=True):
    """Of the requests that were due after the warm-up. Latencies are ms from when a request was due, of those that
    succeeded and were not to be left, and None where there are none; `gap_ms` are all times between two chunks. Rates
    are over `window_s`, from the end of the warm-up to the last end. `hit_rate` is `cached_tokens` over
    `told_prompt_tokens`, of the `num_told_cache` requests whose `usage` tells of it. Of `num_counted_by_chunks` no
    `usage` came, and a chunk counts as a token."""

    window_s: float
    num_requests: int
    num_ok: int
    num_cancelled: int
    num_unfinished: int
    num_failed: int
    errors: dict[str, int]
    error_examples: dict[str, str]
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    gap_ms: Distribution | None
    e2e_ms: Distribution | None
    requests_s: float
    output_tokens_s: float
    prompt_tokens_s: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    told_prompt_tokens: int
    num_told_cache: int
    hit_rate: float | None
    num_counted_by_chunks: int
    mean_in_flight: float
    max_in_flight: int
    goodput: Goodput | None
    send_lag_ms: Distribution | None
    generator_lag_ms: Distribution | None
    is_stopped: bool


def summarise(run: Run, goals: tuple[Goal, ...] = (), warmup_s: float = 0.0) -> Summary:
    counted = [sample for sample in run.samples if sample.scheduled_s >= warmup_s]
    good = [sample for sample in counted if sample.is_ok]
    timed = [sample for sample in good if sample.is_timed]
    outcomes = Counter(sample.outcome for sample in counted)
    ends = [sample.end_s for sample in counted if sample.end_s is not None]
    window_s = max((run.end_s if run.is_stopped else max(ends, default=run.end_s)) - warmup_s, 1e-9)
    told = [sample for sample in good if sample.cached_tokens is not None]
    cached, told_prompt = sum(one.cached_tokens or 0 for one in told), sum(one.prompt_tokens for one in told)
    prompt, output = sum(one.prompt_tokens for one in good), sum(one.output_tokens for one in good)
    spent_s = sum((one.end_s if one.end_s is not None else run.end_s) - one.sent_s for one in counted)
    return Summary(
        window_s=window_s,
        num_requests=len(counted),
        num_ok=len(good),
        num_cancelled=outcomes[Outcome.CANCELLED],
        num_unfinished=outcomes[Outcome.UNFINISHED],
        num_failed=outcomes[Outcome.FAILED],
        errors=dict(Counter(one.error for one in counted if one.error).most_common()),
        error_examples={one.error: one.message for one in reversed(counted) if one.error},
        ttft_ms=_ms(one.ttft_s for one in timed),
        itl_ms=_ms(one.itl_s for one in timed),
        gap_ms=_ms(gap for one in timed for gap in one.gaps_s),
        e2e_ms=_ms(one.e2e_s for one in timed),
        requests_s=len(good) / window_s,
        output_tokens_s=output / window_s,
        prompt_tokens_s=prompt / window_s,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        told_prompt_tokens=told_prompt,
        num_told_cache=len(told),
        hit_rate=cached / told_prompt if told_prompt else None,
        num_counted_by_chunks=sum(not one.has_usage for one in good),
        mean_in_flight=spent_s / window_s,
        max_in_flight=max((number for _, number in in_flight(counted, run.end_s)), default=0),
        goodput=_goodput(counted, goals, window_s) if goals else None,
        send_lag_ms=_ms(one.sent_s - one.scheduled_s for one in counted),
        generator_lag_ms=_ms(run.lag_s),
        is_stopped=run.is_stopped,
    )


def in_flight(samples: Sequence[Sample], end_s: float) -> list[tuple[float, int]]:
    """Times, and how many requests were under way from there on."""
    changes = [(one.sent_s, 1) for one in samples]
    changes += [(one.end_s if one.end_s is not None else end_s, -1) for one in samples]
    found: list[tuple[float, int]] = []
    number = 0
    for at_s, change in sorted(changes):
        number += change
        found.append((at_s, number))
    return found


def _goodput(samples: list[Sample], goals: tuple[Goal, ...], window_s: float) -> Goodput:
    judged = [one for one in samples if one.outcome in (Outcome.OK, Outcome.FAILED) and not one.is_left]
    num_good = sum(is_good(sample, goals) for sample in judged)
    return Goodput(list(map(str, goals)), num_good, num_good / max(1, len(judged)), num_good / window_s)


def _ms(seconds: Iterable[float | None]) -> Distribution | None:
    values = np.array([value for value in seconds if value is not None]) * 1e3
    if not len(values):
        return None
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, (50, 90, 95, 99)))
    return Distribution(len(values), float(values.mean()), float(values.min()), p50, p90, p95, p99, float(values.max()))
