"""What a balancer costs over a plain ASGI stream of the same bytes, and beside LiteLLM's proxy. Real processes, one
Valkey, one agent with the scripted engine, everything on this machine:

    python -m tests.bench.http_cost [--quick] [--rounds 3] [--no-litellm] [--json FILE]

1. tokens: long streams, without pause and paced: tokens/s, and CPU time a token of the process that speaks HTTP.
2. latency: an open loop at a rate that all can serve: time to the first text and to the end.
3. rate: as many short streams at once as are needed to keep every server busy: requests/s.

The same client sends the same bodies to all. The plain server sends what a balancer would, at the pace of the engine;
it is also what is behind the proxy. Rounds alternate between the servers; with more than a little CPU time of `others`
beside ours, repeat: the plain server and the proxy have it too, theirs is the upstream's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests.bench.http_report import Report, Row, Table, goals, print_report, row
from tests.bench.litellm_proxy import find_proxy, litellm
from tests.bench.queue_client import Load, Measured
from tests.bench.queue_fleet import Fleet, fleet, run_load
from tests.bench.queue_latency import machine

UPSTREAM = Path(__file__).with_name("http_upstream.py")
SLOTS = 64


class Case(Struct, frozen=True, kw_only=True):
    """One table. `rate` 0 is a closed loop of `streams`; `has_peer`: LiteLLM is measured too."""

    name: str
    step_ms: float
    tokens: int
    rate: float = 0.0
    streams: int = 1
    seconds: float
    warmup_s: float = 1.0
    has_peer: bool = True

    @property
    def words(self) -> str:
        pace = f"one each {self.step_ms:g} ms" if self.step_ms else "without pause"
        crowd = f"{self.rate:g} requests/s" if self.rate else f"{self.streams} streams at once"
        return f"{crowd}, {self.tokens} tokens each, {pace}"


FULL = (
    Case(name="tokens", step_ms=0.0, tokens=2000, streams=8, seconds=6.0, has_peer=False),
    Case(name="tokens", step_ms=10.0, tokens=200, streams=64, seconds=6.0),
    Case(name="latency", step_ms=5.0, tokens=16, rate=20.0, seconds=10.0),
    Case(name="rate", step_ms=5.0, tokens=16, streams=64, seconds=10.0, warmup_s=3.0),
)
QUICK = (
    Case(name="tokens", step_ms=0.0, tokens=100, streams=2, seconds=0.4, warmup_s=0.1, has_peer=False),
    Case(name="latency", step_ms=5.0, tokens=4, rate=10.0, seconds=1.0, warmup_s=0.3),
    Case(name="rate", step_ms=5.0, tokens=4, streams=8, seconds=1.0, warmup_s=0.5),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds in all: shows that it works, no figures")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--no-litellm", action="store_true", help="leave the proxy out, which has to be installed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    rounds = 1 if args.quick else args.rounds
    found = machine()
    report = Report(processor=found.processor, cores=found.cores, rounds=rounds, is_quick=args.quick)
    program = None if args.no_litellm else find_proxy()
    if program is not None:
        report.litellm = _version(program)
    for case in QUICK if args.quick else FULL:
        print(f"measuring {case.name}: {case.words} ...", file=sys.stderr, flush=True)
        rows = measure(case, rounds, program if case.has_peer else None)
        report.tables.append(Table(name=case.name, load=case.words, rows=rows))
    report.goals = goals(report)
    print_report(report)
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def measure(case: Case, rounds: int, program: Path | None) -> list[Row]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paddler-bench-")))
        upstream, upstream_pid = stack.enter_context(plain_server(case.step_ms))
        running = stack.enter_context(fleet())
        running.start_agents(1, SLOTS, case.step_ms)
        servers: dict[str, Callable[[Load], Measured]] = {
            "plain": _server(upstream, {"plain": upstream_pid}),
            "paddler": _fleet(running),
        }
        if program is not None:
            port, pid = stack.enter_context(litellm(program, upstream, folder))
            servers["litellm"] = _server(port, {"litellm": pid, "upstream": upstream_pid})
        found: dict[str, list[Measured]] = {name: [] for name in servers}
        for number in range(rounds):
            for name, run in servers.items():
                found[name].append(_load(case, number, run))
    process = {"plain": "plain", "paddler": "balancer", "litellm": "litellm"}
    return [row(name, process[name], measured, case.tokens) for name, measured in found.items()]


def _load(case: Case, number: int, run: Callable[[Load], Measured]) -> Measured:
    common: dict[str, Any] = {"host": "", "port": 0, "output_tokens": case.tokens, "patience_s": 60.0}
    if case.rate:
        seconds: dict[str, Any] = {"seconds": case.seconds, "warmup_s": case.warmup_s}
        return run(Load(**common, rate=case.rate, seed=1 + number, **seconds))
    run(Load(**common, streams=case.streams, seconds=case.warmup_s, seed=100 + number))
    return run(Load(**common, streams=case.streams, seconds=case.seconds, seed=200 + number))


def _server(port: int, watched: dict[str, int]) -> Callable[[Load], Measured]:
    def run(load: Load) -> Measured:
        return run_load(msgspec.structs.replace(load, host="127.0.0.1", port=port, watched=watched))

    return run


def _fleet(running: Fleet) -> Callable[[Load], Measured]:
    def run(load: Load) -> Measured:
        fields = msgspec.structs.asdict(load)
        for name in ("host", "port", "watched"):
            del fields[name]
        return running.load(**fields)

    return run


@contextlib.contextmanager
def plain_server(step_ms: float) -> Generator[tuple[int, int]]:
    """Port and process id."""
    command = [sys.executable, "-P", str(UPSTREAM), "--step-ms", str(step_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.communicate()


def _version(program: Path) -> str:
    command = [program.with_name("python"), "-c", "from importlib.metadata import version; print(version('litellm'))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
