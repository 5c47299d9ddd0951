"""The queue benchmark's findings as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.queue_client import Quantiles
from tests.bench.queue_crowd import Crowd
from tests.bench.queue_results import Frames, Latency, Report, Spread, Zero
from tests.bench.queue_scripts import Scripts


def print_report(report: Report) -> None:
    machine = report.machine
    print(
        f"{machine.processor}, {machine.cores} cores, Python {machine.python}, Valkey {machine.valkey}, "
        f"load average {machine.load_average:.1f} at the start; medians of {report.rounds} rounds (lowest to highest)"
    )
    for row in report.latency:
        _print_latency(row)
    for row in report.frames:
        _print_frames(row)
    if report.scripts is not None:
        _print_scripts(report.scripts)
    if report.crowds:
        _print_crowds(report.crowds)
    if report.zero is not None:
        _print_zero(report.zero)
    print()
    for goal in report.goals:
        print(f"{'met   ' if goal.is_met else 'MISSED'}  {goal.what}: {goal.found:g}, goal at most {goal.limit:g}")


def _print_latency(row: Latency) -> None:
    print(f"\nlatency at {row.rate:g} requests/s: {row.num_requests} requests, {_errors(row.num_errors, row.errors)}")
    print(
        f"  achieved           {_spread(row.achieved, 1)} requests/s, client late by {_spread(row.client_lag_p99)} ms"
    )
    print("                     p50, ms                  p99, ms")
    lines = {
        "floor of client": (row.floor_p50, row.floor_p99),
        "first text": (row.first_p50, row.first_p99),
        "added": (row.added_p50, row.added_p99),
        "whole stream": (row.whole_p50, row.whole_p99),
    }
    for name, (p50, p99) in lines.items():
        print(f"  {name:<17}  {_spread(p50):<23}  {_spread(p99)}")
    print(f"  cores              {_cores(row.cores)}")


def _print_frames(row: Frames) -> None:
    pace = f"{row.step_ms:g} ms a step" if row.step_ms else "without pause"
    print(f"\n{row.streams} streams {pace}: {row.num_requests} requests, {_errors(row.num_errors, row.errors)}")
    print(f"  {_spread(row.frames_s, 0)} frames/s, {_spread(row.tokens_s, 0)} tokens/s")
    for name, spread in row.us_per_frame.items():
        print(
            f"  {name:<9} {_spread(spread, 1)} us of CPU a frame, {row.frames_per_core_s[name]:.0f} frames/s and core"
        )
    print(f"  cores     {_cores(row.cores)}")


def _print_scripts(scripts: Scripts) -> None:
    print("\nscripts, us: in the caller p50 and p99, in the server p50 and p99")
    print(f"  PING {_pair(scripts.ping_us)}")
    names = list(scripts.levels[0].cold)
    print("  waiting        " + "".join(f"{name:<27}" for name in names) + "bytes a request, payload")
    for level in scripts.levels:
        weight = level.bytes_per_request
        memory = "" if weight is None else f"{weight:.0f} + {level.payload_bytes}"
        for kind, timings, last in (("cold", level.cold, memory), ("held", level.held, "")):
            cells = [f"{_pair(timings[name].caller_us)}  {_pair(timings[name].server_us)}" for name in names]
            print(f"  {level.waiting:<7}  {kind}  " + "".join(f"{cell:<27}" for cell in cells) + last)


def _print_crowds(crowds: Sequence[Crowd]) -> None:
    print("\nscripts where all agents hold what prompts begin with, us in the caller, p50 and p99")
    print("  agents   submit, free slots   submit, all busy   claim by another")
    for crowd in crowds:
        cells = (_pair(crowd.submit_free_us), _pair(crowd.submit_busy_us), _pair(crowd.claim_us))
        print(f"  {crowd.agents:<7}  {cells[0]:<21}{cells[1]:<19}{cells[2]}")


def _print_zero(zero: Zero) -> None:
    print(f"\n{zero.requests} requests against no agent: accepted in {zero.accept_s:.1f} s", end="")
    print(f" (balancer {zero.balancer_mib:.0f} MiB, Valkey {zero.valkey_mib:.0f} MiB while they wait)")
    print(f"  then {zero.slots} slots come: served in {zero.serve_s:.1f} s, ", end="")
    print(f"{zero.num_refused} refused, {zero.num_lost} lost", end="")
    print(f", at most {zero.max_displacement} places out of order, {zero.num_left} left in the ledger")
    for error in zero.errors:
        print(f"  {error}")


def _spread(spread: Spread, digits: int = 2) -> str:
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f} to {spread.high:.{digits}f})"


def _pair(found: Quantiles) -> str:
    return f"{found.p50:.0f} {found.p99:.0f}"


def _cores(cores: Mapping[str, Spread]) -> str:
    return ", ".join(f"{name} {spread.median:.2f}" for name, spread in cores.items())


def _errors(number: int, errors: list[str]) -> str:
    return f"{number} errors" + (f": {'; '.join(errors)}" if errors else "")
