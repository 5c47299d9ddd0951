"""Paddler's routing beside the field's, in one discrete-event simulation of the production policy:

    python -m tests.bench.routing [--quick] [--seeds 1 2 3] [--only NAME ...] [--jobs 2] [--out FOLDER]

8 agents of 4 slots, sessions of 4 to 12 turns with shared system prompts (`routing_world.py` has the parameters), at
loads .5, .8, .97 and 1.12; with one agent four times slower; with one tenant that submits 3,000 requests at once; and
with 1,000 agents. Prints Markdown tables; `--out` also writes them into routing.md between its two markers, with
routing.json and routing.svg beside it: `make bench-routing ARGS="--out docs"` makes the figures of the documentation.
Everything is drawn from the seeds, so the figures do not depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.bench.routing_policies import POLICIES, Paddler
from tests.bench.routing_report import Row, markdown, svg
from tests.bench.routing_world import Fleet, Scenario

LOADS = (0.5, 0.8, 0.97, 1.12)
PLAIN = [Scenario(name=f"8 agents, load {load:g}", load=load) for load in LOADS]
SLOW = Scenario(name="8 agents, load 0.8, one of them four times slower", note="one slow", load=0.8, num_slow=1)
FLOODED = Scenario(
    name="8 agents, load 0.5, beside a tenant with 3,000 requests at once",
    note="flooded",
    load=0.5,
    num_flood=3_000,
    minutes=15,
)
LARGE = Scenario(
    name="1,000 agents, load 0.97", note="1,000 agents", load=0.97, num_agents=1_000, minutes=0.5, warmup_minutes=2.5
)
SCENARIOS = [*PLAIN, SLOW, FLOODED, LARGE]
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"


class Run(Struct, frozen=True):
    ttft_s: list[float]
    num_prompt: int
    num_cached: int
    claims: dict[str, int]


def simulate(scenario: Scenario, policy: str, seed: int) -> Run:
    fleet = Fleet(scenario, seed)
    contender = POLICIES[policy](fleet)
    requests = fleet.run(contender)
    return Run(
        [request.first_token_s - request.arrived_s for request in requests],
        sum(request.prompt.num_tokens for request in requests),
        sum(request.num_cached for request in requests),
        dict(contender.claims) if isinstance(contender, Paddler) else {},
    )


def summarise(scenario: Scenario, policy: str, runs: list[Run]) -> Row:
    ttft_s = sorted(ttft for run in runs for ttft in run.ttft_s)
    claims: Counter[str] = Counter()
    for run in runs:
        claims.update(run.claims)
    return Row(
        scenario=scenario.name,
        load=scenario.load,
        note=scenario.note,
        policy=policy,
        num_requests=len(ttft_s),
        ttft_mean=sum(ttft_s) / len(ttft_s),
        ttft_p50=ttft_s[len(ttft_s) // 2],
        ttft_p99=ttft_s[len(ttft_s) * 99 // 100],
        hit_rate=sum(run.num_cached for run in runs) / sum(run.num_prompt for run in runs),
        claims=dict(claims),
    )


def verdict(rows: list[Row]) -> str:
    """The goals of the routing benchmark, for every policy of ours."""
    lines: list[str] = []
    at = {(row.load, row.policy): row for row in rows if not row.note}
    for policy in POLICIES:
        needed = {(0.97, policy), (1.12, policy), (0.97, "least loaded")}
        if not policy.startswith("Paddler") or not needed <= at.keys():
            continue
        mine, other, over = at[0.97, policy], at[0.97, "least loaded"], at[1.12, policy]
        for is_met, goal in (
            (mine.ttft_mean <= 1.5, f"mean {mine.ttft_mean:.2f} s at .97 (goal 1.5 s)"),
            (mine.hit_rate >= 0.78, f"hit rate {mine.hit_rate:.1%} at .97 (goal 78 %)"),
            (other.ttft_mean >= 4 * mine.ttft_mean, f"least loaded {other.ttft_mean / mine.ttft_mean:.1f} times it"),
            (over.ttft_mean <= 3, f"mean {over.ttft_mean:.2f} s at 1.12 (goal 3 s)"),
        ):
            lines.append(f"{'met   ' if is_met else 'MISSED'} {policy}: {goal}\n")
    return "".join(lines)


def write(folder: Path, rows: list[Row]) -> None:
    """The text around the tables of an earlier run stays."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "routing.md"
    before, _, rest = (page.read_text() if page.exists() else "").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}{markdown(rows)}{END}{rest.partition(END)[2]}")
    (folder / "routing.json").write_bytes(b"[\n%s\n]\n" % b",\n".join(map(msgspec.json.encode, rows)))
    (folder / "routing.svg").write_text(svg(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the plain fleet for 5 minutes, one seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", help="policies whose name contains one of these", default=[""])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="folder for routing.json, routing.md and routing.svg")
    args = parser.parse_args()
    seeds: list[int] = args.seeds
    scenarios = SCENARIOS
    if args.quick:
        scenarios, seeds = [msgspec.structs.replace(scenario, minutes=5) for scenario in PLAIN], seeds[:1]
    policies = [name for name in POLICIES if any(part in name for part in args.only)]
    rows: list[Row] = []
    with ProcessPoolExecutor(args.jobs) as pool:
        pending = [
            # A fleet of a thousand averages over its own size.
            (scenario, policy, pool.map(partial(simulate, scenario, policy), seeds[:1] if scenario is LARGE else seeds))
            for scenario in scenarios
            for policy in policies
        ]
        for scenario, policy, runs in pending:
            rows.append(summarise(scenario, policy, list(runs)))
            print(f"{scenario.name}: {policy}: {rows[-1].ttft_mean:.2f} s", file=sys.stderr)
    print(markdown(rows) + verdict(rows), end="")
    if args.out is not None:
        write(args.out, rows)


if __name__ == "__main__":
    main()
