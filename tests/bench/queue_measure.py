"""The parts of the queue benchmark that run a whole fleet."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from tests.bench.queue_client import Load, Measured
from tests.bench.queue_fleet import Fleet, end_load, fleet, floor_server, run_load, start_load
from tests.bench.queue_results import Frames, Latency, Zero, frames, latency

OUTPUT_TOKENS = 8
LATENCY_SLOTS = 32
MIB = 1 << 20
SERVE_S = 300.0
STALL_S = 15.0
MAX_SILENT = 400
"""Submits under way: a balancer has 32 connections to Redis, and refuses a request that waits 5 s for one."""


def measure_latency(
    running: Fleet, rates: Sequence[tuple[float, float]], *, warmup_s: float, rounds: int
) -> list[Latency]:
    """`rates` are requests/s and for how many seconds."""
    measured: list[Latency] = []
    running.start_agents(1, LATENCY_SLOTS)
    with floor_server() as floor_port:
        for rate, seconds in rates:
            floors: list[Measured] = []
            found: list[Measured] = []
            for number in range(rounds):
                load: dict[str, Any] = {"rate": rate, "seconds": seconds, "warmup_s": warmup_s}
                load |= {"seed": int(rate) * 10 + number, "output_tokens": OUTPUT_TOKENS}
                floors.append(run_load(Load(host="127.0.0.1", port=floor_port, **load)))
                found.append(running.load(**load))
            measured.append(latency(rate, floors, found))
    running.stop_agents()
    return measured


def measure_frames(
    running: Fleet, cases: Sequence[tuple[int, float, int]], *, seconds: float, warmup_s: float, rounds: int
) -> list[Frames]:
    """`cases` are streams at once, ms a step, and tokens a stream."""
    measured: list[Frames] = []
    for streams, step_ms, output_tokens in cases:
        running.start_agents(1, streams, step_ms)
        load = {"streams": streams, "output_tokens": output_tokens}
        running.load(seconds=warmup_s, seed=1, **load)
        found = [running.load(seconds=seconds, seed=2 + number, **load) for number in range(rounds)]
        measured.append(frames(streams, step_ms, output_tokens, found))
        running.stop_agents()
    return measured


def measure_zero(requests: int, *, agents: int, slots: int) -> Zero:
    """All requests are accepted while there is no agent; then agents come."""
    with fleet() as running:
        load = Load(
            host=running.host,
            port=running.port,
            output_tokens=OUTPUT_TOKENS,
            streams=requests,
            requests=requests,
            max_silent=MAX_SILENT,
            patience_s=SERVE_S,
        )
        began = time.monotonic()
        process = start_load(load)
        try:
            _wait_accepted(running, requests)
            accept_s = time.monotonic() - began
            balancer_mib = running.rss(running.balancer) / MIB
            valkey_mib = running.redis.info("memory")["used_memory"] / MIB
            begun = time.monotonic()
            running.start_agents(agents, slots)
            measured = end_load(process)
        finally:
            process.kill()
        serve_s = time.monotonic() - begun
        num_answered = measured.num_requests - measured.num_errors
        return Zero(
            requests=requests,
            slots=agents * slots,
            accept_s=round(accept_s, 2),
            balancer_mib=round(balancer_mib, 1),
            valkey_mib=round(valkey_mib, 1),
            serve_s=round(serve_s, 2),
            num_refused=measured.num_refused,
            num_lost=requests - measured.num_refused - num_answered,
            max_displacement=max_displacement(_times(running)),
            num_left=running.demand(),
            errors=measured.errors,
        )


def _wait_accepted(running: Fleet, requests: int) -> None:
    """Until all were accepted, or no more come."""
    num_accepted, changed = 0, time.monotonic()
    while num_accepted < requests and time.monotonic() - changed < STALL_S:
        time.sleep(0.05)
        before, num_accepted = num_accepted, running.demand()
        changed = time.monotonic() if num_accepted != before else changed


def _times(running: Fleet) -> list[tuple[float, float]]:
    """When each request was accepted and given to an agent, ms."""
    pipe = running.redis.pipeline(transaction=False)
    for key in running.redis.scan_iter(running.keys.request("*"), count=1000):
        pipe.hmget(key, "accepted", "delivered")
    answers: list[tuple[bytes, bytes]] = pipe.execute()
    return [(float(accepted), float(given)) for accepted, given in answers if accepted and given]


def max_displacement(times: Sequence[tuple[float, float]]) -> int:
    """By how many places a request was given earlier or later than it was accepted. Where times are equal a
    request has the places of all that share its own, and its displacement is the gap between the two ranges."""
    accepted, given = sorted(one for one, _ in times), sorted(one for _, one in times)
    worst = 0
    for came, went in times:
        first_in, last_in = bisect_left(accepted, came), bisect_right(accepted, came) - 1
        first_out, last_out = bisect_left(given, went), bisect_right(given, went) - 1
        worst = max(worst, first_out - last_in, first_in - last_out)
    return worst
