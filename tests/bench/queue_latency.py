"""What the queue costs, with real processes and an engine that takes no time, everything on this machine:

    python -m tests.bench.queue_latency [--smoke] [--rounds 3] [--only latency frames scripts zero] [--json FILE]

1. latency: an open loop of streaming chat completions, from writing the request to the first byte of text, beside
   the same client against a server that answers at once (the client's own floor).
2. frames: streams without pause, and paced: frames and tokens a second, CPU time a frame.
3. scripts: submit, claim, open and settle with many requests waiting, and the memory of a waiting request; submit and
   claim with many agents.
4. zero: requests against no agent; then agents come, and serve all in the order in which they were accepted.

Rounds alternate between floor and balancer; figures are medians, with the lowest and the highest of the rounds.
`others` is the CPU time of what else ran on the machine, in cores: with more than a little of it, repeat.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop
from msgspec import Struct

from tests.bench.queue_crowd import measure_crowds
from tests.bench.queue_fleet import fleet, valkey_version
from tests.bench.queue_measure import measure_frames, measure_latency, measure_zero
from tests.bench.queue_report import print_report
from tests.bench.queue_results import Machine, Report, goals
from tests.bench.queue_scripts import measure_scripts

PARTS = ("latency", "frames", "scripts", "zero")


class Sizes(Struct, frozen=True, kw_only=True):
    """`rates`: requests/s and seconds. `frames`: streams, ms a step, tokens a stream. `waiting`: how many wait while
    the scripts are measured, over `cycles` each, and `crowds` how many agents are there."""

    rounds: int
    warmup_s: float
    rates: tuple[tuple[float, float], ...]
    frames: tuple[tuple[int, float, int], ...]
    frames_s: float
    waiting: tuple[int, ...]
    crowds: tuple[int, ...]
    cycles: int
    zero_requests: int
    zero_agents: int
    zero_slots: int


FULL = Sizes(
    rounds=3,
    warmup_s=2.0,
    rates=((50, 8.0), (500, 5.0)),
    frames=((8, 0.0, 4000), (32, 2.0, 500), (32, 20.0, 100)),
    frames_s=4.0,
    waiting=(10, 1_000, 10_000, 100_000),
    crowds=(10, 100, 1_000),
    cycles=500,
    zero_requests=10_000,
    zero_agents=2,
    zero_slots=8,
)
SMOKE = Sizes(
    rounds=1,
    warmup_s=0.2,
    rates=((20, 0.5), (50, 0.5)),
    frames=((4, 0.0, 200), (4, 5.0, 20)),
    frames_s=0.3,
    waiting=(10, 200),
    crowds=(2, 20),
    cycles=10,
    zero_requests=50,
    zero_agents=1,
    zero_slots=4,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: shows that it works, no figures")
    parser.add_argument("--rounds", type=int, help="how often latency and frames are measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    sizes = SMOKE if args.smoke else FULL
    if args.rounds is not None:
        sizes = msgspec.structs.replace(sizes, rounds=args.rounds)
    report = run(sizes, args.only, is_smoke=args.smoke)
    print_report(report)
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def run(sizes: Sizes, parts: Sequence[str], *, is_smoke: bool) -> Report:
    report = Report(machine=machine(), is_smoke=is_smoke, rounds=sizes.rounds)
    if "latency" in parts or "frames" in parts:
        with fleet() as running:
            times: dict[str, Any] = {"warmup_s": sizes.warmup_s, "rounds": sizes.rounds}
            if "latency" in parts:
                _say("latency")
                report.latency = measure_latency(running, sizes.rates, **times)
            if "frames" in parts:
                _say("frames")
                report.frames = measure_frames(running, sizes.frames, seconds=sizes.frames_s, **times)
    if "scripts" in parts:
        _say("scripts")
        report.scripts = uvloop.run(measure_scripts(sizes.waiting, sizes.cycles))
        report.crowds = uvloop.run(measure_crowds(sizes.crowds, sizes.cycles))
    if "zero" in parts:
        _say("zero")
        report.zero = measure_zero(sizes.zero_requests, agents=sizes.zero_agents, slots=sizes.zero_slots)
    report.goals = goals(report)
    return report


def _say(part: str) -> None:
    print(f"measuring {part} ...", file=sys.stderr, flush=True)


def machine() -> Machine:
    cpus = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    names = [line.partition(": ")[2] for line in cpus.splitlines() if line.startswith("model name")]
    return Machine(
        processor=names[0] if names else platform.processor(),
        cores=psutil.cpu_count() or 0,
        python=platform.python_version(),
        valkey=valkey_version(),
        load_average=os.getloadavg()[0],
    )


if __name__ == "__main__":
    sys.exit(main())
