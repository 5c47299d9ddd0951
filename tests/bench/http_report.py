"""What the HTTP benchmark found: the structure of `--json`, the goals, and the tables."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tests.bench.queue_client import Measured
from tests.bench.queue_results import Spread

GOAL_RATE = 3.0


class Row(Struct, kw_only=True):
    """One server under one load. Times are ms. `us_per_token` and `us_per_request` are CPU time of the process that
    speaks HTTP, `tokens_per_core_s` is what one such process would send if it had a core for itself; `others` is what
    else of the machine was busy, in cores. Tokens are counted, not events: a balancer sends those that come together as
    one, the others never do."""

    server: str
    requests_s: Spread
    tokens_s: Spread
    first_p50: Spread
    first_p99: Spread
    whole_p50: Spread
    whole_p99: Spread
    us_per_token: Spread
    us_per_request: Spread
    tokens_per_core_s: float
    others: Spread
    num_requests: int
    num_errors: int
    errors: list[str]


class Table(Struct, kw_only=True):
    """Rows of one load. `load` says it in words."""

    name: str
    load: str
    rows: list[Row]

    def row(self, server: str) -> Row | None:
        return next((row for row in self.rows if row.server == server), None)


class Goal(Struct):
    what: str
    found: str
    is_met: bool


class Report(Struct, kw_only=True):
    processor: str
    cores: int
    rounds: int
    is_quick: bool
    litellm: str | None = None
    tables: list[Table] = []
    goals: list[Goal] = []


def row(server: str, process: str, rounds: Sequence[Measured], tokens: int) -> Row:
    """`process` is the watched one that speaks HTTP, `tokens` what each answer has."""
    cpu_s = [one.cpu_s[process] for one in rounds]
    num_tokens = [(one.num_requests - one.num_errors) * tokens for one in rounds]
    us_per_token = Spread.of([cpu * 1e6 / max(1, num) for cpu, num in zip(cpu_s, num_tokens, strict=True)])
    us_per_request = Spread.of([cpu * 1e6 / max(1, one.num_requests) for cpu, one in zip(cpu_s, rounds, strict=True)])
    return Row(
        server=server,
        requests_s=Spread.of([(one.num_requests - one.num_errors) / one.window_s for one in rounds]),
        tokens_s=Spread.of([num / one.window_s for num, one in zip(num_tokens, rounds, strict=True)]),
        first_p50=Spread.of([one.first_us.p50 / 1e3 for one in rounds]),
        first_p99=Spread.of([one.first_us.p99 / 1e3 for one in rounds]),
        whole_p50=Spread.of([one.whole_us.p50 / 1e3 for one in rounds]),
        whole_p99=Spread.of([one.whole_us.p99 / 1e3 for one in rounds]),
        us_per_token=us_per_token,
        us_per_request=us_per_request,
        tokens_per_core_s=round(1e6 / us_per_token.median) if us_per_token.median else 0.0,
        others=Spread.of([one.cpu_s["others"] / one.window_s for one in rounds]),
        num_requests=sum(one.num_requests for one in rounds),
        num_errors=sum(one.num_errors for one in rounds),
        errors=sorted({error for one in rounds for error in one.errors})[:5],
    )


def goals(report: Report) -> list[Goal]:
    """Against the proxy, where it was measured."""
    found: list[Goal] = []
    for table in report.tables:
        ours, theirs = table.row("paddler"), table.row("litellm")
        if ours is None or theirs is None:
            continue
        if table.name == "rate":
            ratio = ours.requests_s.median / max(theirs.requests_s.median, 1e-9)
            found.append(Goal(f"{GOAL_RATE:g} times LiteLLM's request rate", f"{ratio:.1f} times", ratio >= GOAL_RATE))
        pair = (ours.whole_p99.median, theirs.whole_p99.median)
        found.append(
            Goal(f"p99 below LiteLLM's ({table.name})", f"{pair[0]:.1f} and {pair[1]:.1f} ms", pair[0] < pair[1])
        )
    return found


def print_report(report: Report) -> None:
    peer = f", LiteLLM {report.litellm}" if report.litellm else ""
    quick = "; --quick: shows that it works, no figures" if report.is_quick else ""
    print(f"{report.processor}, {report.cores} cores{peer}; medians of {report.rounds} rounds (lowest, highest){quick}")
    for table in report.tables:
        print(f"\n{table.name}: {table.load}")
        print(
            "            requests/s               tokens/s                 first text p50, p99 ms   whole p50, p99 ms"
        )
        for one in table.rows:
            first = f"{one.first_p50.median:.2f}, {one.first_p99.median:.2f}"
            whole = f"{one.whole_p50.median:.2f}, {one.whole_p99.median:.2f}"
            rate, tokens = _spread(one.requests_s), _spread(one.tokens_s)
            print(f"  {one.server:<9} {rate:<24} {tokens:<24} {first:<24} {whole}")
        for one in table.rows:
            errors = f"; {one.num_errors} errors: {one.errors}" if one.num_errors else ""
            token = f"{one.us_per_token.median:.1f} us of CPU a token ({one.tokens_per_core_s:.0f} a core and second)"
            request = f"{one.us_per_request.median:.0f} a request; others {one.others.median:.2f} cores"
            print(f"  {one.server:<9} {token}, {request}{errors}")
        _print_added(table)
    print()
    for goal in report.goals:
        print(f"{'met   ' if goal.is_met else 'MISSED'}  {goal.what}: {goal.found}")


def _print_added(table: Table) -> None:
    plain = table.row("plain")
    for one in table.rows:
        if plain is not None and one is not plain:
            first = one.first_p50.median - plain.first_p50.median, one.first_p99.median - plain.first_p99.median
            print(f"  {one.server:<9} adds {first[0]:.2f} ms (p50), {first[1]:.2f} ms (p99) to the first text")


def _spread(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f} to {spread.high:.1f})"
