"""A fleet of Paddler beside servers behind nginx, as clients see them: the same model, slots, threads, context, load.

    python -m tests.bench.fleet [--rounds 3] [--seconds 30] [--rate R] [--json FILE] [--out docs/benchmarks.md]

Two agents of two slots against two llama-servers of two slots behind nginx with `least_conn`, and behind nginx with its
default, round robin. `paddler bench` makes the load, conversations that share system prompts in an open loop, and asks
the sides in turn, A B C A B C; medians over the rounds are compared. Without --rate a sweep looks for the highest rate
that least_conn bears: when arrivals end its backlog must be done within a fifth of their time.

The conversations are those of the study that the routing policy comes from (`routing_world.py`: about eight turns of
150 and 170 tokens behind one of ten system prompts of 1,024), a quarter as long for two cores. Both kinds of server
keep what leaves their KV cache in 8 GiB of host memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from paddler.bench.report import Report
from paddler.cores import num_usable_cores
from paddler.up.starter import find_starter
from tests.bench.fleet_report import Versus, markdown, write_into
from tests.bench.fleet_sides import PATIENCE_MS, PEER, Sizes, all_sides
from tests.bench.queue_latency import machine

RATES = (0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.35, 1.6, 2.0)
WORKLOAD = (
    *("--arrival", "constant", "--turns", "6:10", "--think", "500", "--system-tokens", "256", "--system-prompts", "10"),
    *("--prompt-tokens", "20:55", "--output-tokens", "40", "--ignore-eos", "--extra-body", '{"temperature": 0}'),
    *("--timeout", str(2 * PATIENCE_MS), "--goodput", "ttft:2000 itl:100"),
)
SMOKE = (
    *("--turns", "2:3", "--system-tokens", "40", "--prompt-tokens", "10:20", "--output-tokens", "4"),
    *("--goodput", "ttft:2000"),
    # Plain streams list no models and count nothing.
    *("--model", "default", "--compare-model", "default", "--tokens-per-word", "1"),
)
SMOKE_RATE = 6.0
SWEEP_SEED = 1000
"""Apart from the seeds of the rounds: what the sweep has left in caches helps nobody."""
MAX_BACKLOG = 0.2
WARMUP = 0.2
"""Of the time of a round: as long as a conversation takes, so that as many end as begin."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the starter model")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, default=30.0, help="for which requests come in, in each round")
    parser.add_argument("--rate", type=float, help="requests/s, instead of a sweep")
    parser.add_argument("--threads", type=int, help="of each agent and server; by default the cores shared among two")
    parser.add_argument("--smoke", action="store_true", help="without a model and llama-server: shows that it works")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the page of `paddler bench`")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a Markdown file whose section gets the table")
    args = parser.parse_args(arguments)
    threads = args.threads or max(1, num_usable_cores() // 2)
    model = None if args.smoke else args.model or find_starter()
    sizes = Sizes(model=model, threads=threads)
    workload = SMOKE if args.smoke else WORKLOAD
    found = machine()
    with all_sides(sizes) as sides, tempfile.TemporaryDirectory(prefix="paddler-bench-") as folder:
        bench = Client(workload, Path(folder))
        rate: float = args.rate or (SMOKE_RATE if args.smoke else bench.sweep(sides, args.seconds))
        said = ["--rounds", str(args.rounds), "--warmup", str(round(args.seconds * 1000 * WARMUP))]
        report = bench.run(
            sides, rate, args.seconds, *said, *(["--html", str(args.html)] if args.html else []), shown=True
        )
    versus = Versus(
        report=report,
        processor=found.processor,
        cores=found.cores,
        model="none: the scripted engine and plain streams" if model is None else model.name,
        sizes=sizes.words,
        rate=rate,
        seconds=args.seconds,
        load_average=found.load_average,
        workload=" ".join(f"'{word}'" if " " in word else word for word in workload),
    )
    print(f"\n{markdown(versus)}")
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(versus), indent=1) + b"\n")
    if args.out is not None:
        write_into(args.out, markdown(versus))
    return 0


class Client:
    """`paddler bench`, as its users call it. Sides are URLs by name."""

    def __init__(self, workload: Sequence[str], folder: Path) -> None:
        self._workload = workload
        self._file = folder / "report.json"

    def sweep(self, sides: dict[str, str], seconds: float) -> float:
        """The highest of `RATES` that `PEER` bears, at least the lowest one."""
        borne = RATES[0]
        for number, rate in enumerate(RATES):
            report = self.run({PEER: sides[PEER]}, rate, seconds, "--seed", str(SWEEP_SEED + number))
            (summary,) = report.targets[0].rounds
            backlog_s = max(0.0, summary.window_s - seconds)
            print(f"fleet: {rate:g} requests/s leave {PEER} {backlog_s:.1f} s of work", flush=True)
            if backlog_s > MAX_BACKLOG * seconds or summary.num_failed:
                break
            borne = rate
        return borne

    def run(self, sides: dict[str, str], rate: float, seconds: float, *flags: str, shown: bool = False) -> Report:
        first, *others = (f"{name}={url}" for name, url in sides.items())
        targets = ["--url", first, *(word for place in others for word in ("--compare", place))]
        load = ["--rate", str(rate), "--duration", str(round(seconds * 1000))]
        self._file.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "paddler", "bench", *targets, *load, *self._workload, *flags]
        ended = subprocess.run([*command, "--output", str(self._file)], stdout=None if shown else subprocess.DEVNULL)
        if ended.returncode not in (0, 1) or not self._file.exists():
            raise SystemExit("paddler bench failed (its words are above)")
        return msgspec.json.decode(self._file.read_bytes(), type=Report)


if __name__ == "__main__":
    sys.exit(main())
