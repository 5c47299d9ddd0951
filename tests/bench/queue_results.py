"""What the queue benchmark found: the structure of `--json`, and the goals it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from msgspec import Struct

from tests.bench.queue_client import Measured
from tests.bench.queue_crowd import Crowd
from tests.bench.queue_scripts import Scripts


class Spread(Struct):
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*(round(value, 3) for value in (statistics.median(values), min(values), max(values))))


class Latency(Struct, kw_only=True):
    """Times are ms; `added` is the balancer's figure less the floor's of the same round. CPU is in cores."""

    rate: float
    achieved: Spread
    floor_p50: Spread
    floor_p99: Spread
    first_p50: Spread
    first_p99: Spread
    whole_p50: Spread
    whole_p99: Spread
    added_p50: Spread
    added_p99: Spread
    client_lag_p99: Spread
    cores: dict[str, Spread]
    num_requests: int
    num_errors: int
    errors: list[str]


class Frames(Struct, kw_only=True):
    """`step_ms` 0 is without pause. `us_per_frame` is CPU time by process, `frames_per_core_s` its inverse."""

    streams: int
    step_ms: float
    frames_s: Spread
    tokens_s: Spread
    us_per_frame: dict[str, Spread]
    frames_per_core_s: dict[str, float]
    cores: dict[str, Spread]
    num_requests: int
    num_errors: int
    errors: list[str]


class Zero(Struct, kw_only=True):
    """`serve_s` is from the start of the agents' processes to the last answer; `max_displacement` is by how many places
    a request was given to an agent earlier or later than it was accepted; `num_refused` were told so by their status,
    `num_lost` were accepted and not answered; `num_left` is what the ledger still holds at the end."""

    requests: int
    slots: int
    accept_s: float
    balancer_mib: float
    valkey_mib: float
    serve_s: float
    num_refused: int
    num_lost: int
    max_displacement: int
    num_left: int
    errors: list[str]


class Goal(Struct):
    what: str
    limit: float
    found: float
    is_met: bool


class Machine(Struct):
    processor: str
    cores: int
    python: str
    valkey: str
    load_average: float


class Report(Struct, kw_only=True):
    machine: Machine
    is_smoke: bool
    rounds: int
    latency: list[Latency] = []
    frames: list[Frames] = []
    scripts: Scripts | None = None
    crowds: list[Crowd] = []
    zero: Zero | None = None
    goals: list[Goal] = []


def goals(report: Report) -> list[Goal]:
    """The goals that what was measured bears on."""
    found: list[tuple[str, float, float]] = []
    for row in report.latency:
        if row.rate == 50:
            found.append(("added latency, p50 at 50 requests/s, ms", 1.5, row.added_p50.median))
        if row.rate == 500:
            found.append(("added latency, p99 at 500 requests/s, ms", 8.0, row.added_p99.median))
    for level in report.scripts.levels if report.scripts is not None else ():
        if level.waiting == 10_000:
            slowest = max(kind["claim"].caller_us.p99 for kind in (level.cold, level.held))
            found.append(("claim with 10,000 waiting, p99, ms", 2.0, slowest / 1e3))
            weight = level.bytes_per_request or 0.0
            found.append(("memory of a waiting request beside its payload, bytes", 3072, weight))
    if report.zero is not None:
        found.append(("requests refused or lost that met no agent", 0, report.zero.num_refused + report.zero.num_lost))
        found.append(("places out of order", report.zero.slots, report.zero.max_displacement))
    return [Goal(what, limit, round(value, 3), value <= limit) for what, limit, value in found]


def latency(rate: float, floors: Sequence[Measured], rounds: Sequence[Measured]) -> Latency:
    pairs = list(zip(floors, rounds, strict=True))
    return Latency(
        rate=rate,
        achieved=Spread.of([(one.num_requests - one.num_errors) / one.window_s for one in rounds]),
        floor_p50=Spread.of([one.first_us.p50 / 1e3 for one in floors]),
        floor_p99=Spread.of([one.first_us.p99 / 1e3 for one in floors]),
        first_p50=Spread.of([one.first_us.p50 / 1e3 for one in rounds]),
        first_p99=Spread.of([one.first_us.p99 / 1e3 for one in rounds]),
        whole_p50=Spread.of([one.whole_us.p50 / 1e3 for one in rounds]),
        whole_p99=Spread.of([one.whole_us.p99 / 1e3 for one in rounds]),
        added_p50=Spread.of([(one.first_us.p50 - floor.first_us.p50) / 1e3 for floor, one in pairs]),
        added_p99=Spread.of([(one.first_us.p99 - floor.first_us.p99) / 1e3 for floor, one in pairs]),
        client_lag_p99=Spread.of([one.lag_us.p99 / 1e3 for one in rounds]),
        cores=_cores(rounds),
        num_requests=sum(one.num_requests for one in rounds),
        num_errors=sum(one.num_errors for one in rounds),
        errors=_errors(rounds),
    )


def frames(streams: int, step_ms: float, output_tokens: int, rounds: Sequence[Measured]) -> Frames:
    watched = [name for name in rounds[0].cpu_s if name not in ("client", "others")]
    us = {name: Spread.of([one.cpu_s[name] * 1e6 / max(1, one.num_frames) for one in rounds]) for name in watched}
    return Frames(
        streams=streams,
        step_ms=step_ms,
        frames_s=Spread.of([one.num_frames / one.window_s for one in rounds]),
        tokens_s=Spread.of([(one.num_requests - one.num_errors) * output_tokens / one.window_s for one in rounds]),
        us_per_frame=us,
        frames_per_core_s={name: round(1e6 / spread.median) if spread.median else 0 for name, spread in us.items()},
        cores=_cores(rounds),
        num_requests=sum(one.num_requests for one in rounds),
        num_errors=sum(one.num_errors for one in rounds),
        errors=_errors(rounds),
    )


def _cores(rounds: Sequence[Measured]) -> dict[str, Spread]:
    return {name: Spread.of([one.cpu_s[name] / one.window_s for one in rounds]) for name in rounds[0].cpu_s}


def _errors(rounds: Sequence[Measured]) -> list[str]:
    return sorted({error for one in rounds for error in one.errors})
