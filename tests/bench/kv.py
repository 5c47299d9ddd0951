"""What the tiers behind the KV cache bring, with real processes and a real model, everything on this machine:

    python -m tests.bench.kv [--rounds 3] [--only peer shared disk ram zero leaving] [--out docs/kv-cache.md]

1. peer, shared, disk, ram: time to the first token of a prompt, computed, and restored from that tier: on another agent
   that never saw it; after a restart; after it was pushed out of the context.
2. zero: a request behind a pinned system prompt waits for the first agent.
3. leaving: an agent gets SIGTERM in the middle of a conversation.

In each round every prompt is new, is computed, and is then restored: both are measured within seconds of each other.
Medians over the rounds are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from paddler.cores import num_usable_cores
from paddler.up.starter import find_starter
from tests.bench.fleet_report import write_into
from tests.bench.kv_fleet import Sizes, kv_fleet
from tests.bench.kv_parts import Parts
from tests.bench.kv_report import MARKS, Report, markdown
from tests.bench.queue_latency import machine

PARTS = ("peer", "shared", "disk", "ram", "zero", "leaving")
PREFIXES = (1000, 4000)
CONVERSATION = 3000


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the starter model")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=PREFIXES, metavar="TOKENS", help="of the prefixes")
    parser.add_argument("--conversation", type=int, default=CONVERSATION, metavar="TOKENS", help="that is interrupted")
    parser.add_argument(
        "--threads", type=int, help="of each agent; by default one a core, as only one computes at a time"
    )
    parser.add_argument("--output-tokens", type=int, default=120, metavar="TOKENS", help="of it, in whose middle it is")
    parser.add_argument("--context-size", type=int, default=8192)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a Markdown file whose section gets the table")
    args = parser.parse_args(arguments)
    sizes = Sizes(
        model=args.model or find_starter(), threads=args.threads or num_usable_cores(), context_size=args.context_size
    )
    prefixes: tuple[int, ...] = tuple(args.sizes)
    found = machine()
    report = Report(machine=found, model=sizes.model.name, threads=sizes.threads, rounds=args.rounds)
    with kv_fleet(sizes) as fleet:
        parts = Parts(fleet, args.rounds, lambda said: print(f"kv: {said}", flush=True))
        for tier in ("peer", "shared"):
            if tier in args.only:
                report.prefixes += parts.other_agent(tier, prefixes)
        if "disk" in args.only:
            report.prefixes += parts.after_restart(prefixes)
        if "ram" in args.only:
            report.prefixes += parts.after_eviction(prefixes)
        if "zero" in args.only:
            report.zero = parts.from_zero(prefixes[0])
        if "leaving" in args.only:
            report.gaps = parts.leaving(args.conversation, args.output_tokens)
    print(f"\n{markdown(report)}")
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if args.out is not None:
        write_into(args.out, markdown(report), MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
