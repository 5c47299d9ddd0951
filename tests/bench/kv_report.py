"""What the benchmark of the tiers found, as a table of Markdown with its goals."""

from __future__ import annotations

from statistics import median

from msgspec import Struct

from tests.bench.queue_results import Goal, Machine

MARKS = ("<!-- kv: begin -->\n", "<!-- kv: end -->\n")
ANOTHER, HERE = 0.15, 0.05
FROM_ZERO_S, GAP_S = 0.15, 0.3
WORDS = {
    "peer": "computed by another agent, fetched from it (`--kv-addr`)",
    "shared": "computed by another agent, from the shared store (`--kv-url`)",
    "disk": "computed before the agent was restarted (`--kv-disk`)",
    "ram": "pushed out of the context meanwhile (`--kv-ram`)",
}


class Prefix(Struct, kw_only=True):
    """One prompt computed and restored; seconds to the first token, by round. `cached_tokens` are of the restored."""

    tier: str
    size: int
    prompt_tokens: int
    cached_tokens: list[int]
    cold_s: list[float]
    restored_s: list[float]

    @property
    def ratio(self) -> float:
        return median(self.restored_s) / median(self.cold_s)


class Zero(Struct, kw_only=True):
    """Seconds from the start of an agent: until one without tiers was ready, and until the first token of a request
    that had waited for it, with a pinned prefix and without."""

    size: int
    load_s: list[float]
    pinned_s: list[float]
    cold_s: list[float]


class Gap(Struct, kw_only=True):
    """The longest time between two pieces of text from SIGTERM on, by round; `usual_s` are medians of all of them."""

    size: int
    has_state: bool
    seconds: list[float]
    usual_s: list[float]


class Report(Struct, kw_only=True):
    machine: Machine
    model: str
    threads: int
    rounds: int
    prefixes: list[Prefix] = []
    zero: Zero | None = None
    gaps: list[Gap] = []


def goals(report: Report) -> list[Goal]:
    found: list[Goal] = []

    def goal(what: str, value: float, limit: float) -> None:
        found.append(Goal(what, limit, value, value <= limit))

    for one in report.prefixes:
        goal(f"{one.tier}, {one.size:,} tokens, to cold", one.ratio, HERE if one.tier == "ram" else ANOTHER)
    if (zero := report.zero) is not None:
        goal("from zero, pinned: beyond the load, s", median(zero.pinned_s) - median(zero.load_s), FROM_ZERO_S)
    for gap in report.gaps:
        if gap.has_state:
            goal("hand-over with state: gap, s", median(gap.seconds), GAP_S)
    return found


def markdown(report: Report) -> str:
    machine = report.machine
    host = f"{machine.processor}, {machine.cores} cores, load average {machine.load_average:.1f} before it began"
    size = f"model {report.model}; {report.threads} thread(s) an agent"
    rounds = f"medians of {report.rounds} rounds, lowest and highest in brackets, in seconds"
    lines = [
        f"{host}; Valkey {machine.valkey}; {size}; {rounds}.",
        "",
        "| time to the first token of a prompt that was | tokens | computed | restored | ratio | wanted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in report.prefixes:
        wanted = HERE if one.tier == "ram" else ANOTHER
        cells = (f"{one.prompt_tokens:,}", _told(one.cold_s), _told(one.restored_s), f"{one.ratio:.3f}", f"{wanted}")
        lines.append(f"| {WORDS[one.tier]} | {' | '.join(cells)} |")
    if (zero := report.zero) is not None:
        beyond = median(zero.pinned_s) - median(zero.load_s)
        lines += [
            "",
            "| from no agent at all | seconds |",
            "|---|---:|",
            f"| an agent is started and ready | {_told(zero.load_s)} |",
            f"| first token behind a pinned prompt of {zero.size:,} tokens | {_told(zero.pinned_s)} |",
            f"| of it, beyond the start (wanted: {FROM_ZERO_S}) | {beyond:.3f} |",
            f"| first token behind a prompt of as many that is new | {_told(zero.cold_s)} |",
        ]
    if report.gaps:
        size = report.gaps[0].size
        lines += ["", f"| SIGTERM in a conversation of {size:,} tokens: longest gap | seconds |", "|---|---:|"]
        for gap in report.gaps:
            name = f"with state (wanted: {GAP_S})" if gap.has_state else "without"
            lines.append(f"| {name} | {_told(gap.seconds)} |")
        lines.append(f"| between two pieces of text otherwise | {_told(report.gaps[0].usual_s)} |")
    lines += ["", *(f"- {'met' if one.is_met else 'MISSED'}: {_goal(one)}" for one in goals(report)), ""]
    return "\n".join(lines)


def _goal(one: Goal) -> str:
    return f"{one.what}: {one.found:.3f}, goal {one.limit:g}"


def _told(seconds: list[float]) -> str:
    return f"{median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
