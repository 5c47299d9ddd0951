"""What the fleet benchmark found, as a section of Markdown."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from paddler.bench.report import FIGURES as ALL
from paddler.bench.report import Figure, Report, median
from paddler.bench.shown import ratio_told, value_told
from paddler.bench.summary import Summary

BEGIN, END = "<!-- fleet: begin -->\n", "<!-- fleet: end -->\n"
FASTER, MORE_HITS = 2.0, 1.5


class Versus(Struct, kw_only=True):
    """The first target of `report` is ours. `load_average` is that of the machine before any of it ran: where it is not
    far below the cores, others are measured."""

    report: Report
    processor: str
    cores: int
    model: str
    sizes: str
    rate: float
    seconds: float
    workload: str
    load_average: float


def markdown(versus: Versus) -> str:
    report = versus.report
    sides = [target.label for target in report.targets]
    ratios = {row.figure: row for row in report.comparison}
    load = f"{versus.rate:g} requests/s offered for {versus.seconds:g} s"
    host = f"{versus.processor}, {versus.cores} cores, load average {versus.load_average:.1f} before it began"
    rounds = f"medians of {len(report.targets[0].rounds)} rounds in turn, lowest and highest round in brackets"
    lines = [
        f"{host}; model {versus.model}; {versus.sizes}; {load}; {rounds}.",
        "",
        f"    paddler bench --rate {versus.rate:g} {versus.workload}",
        "",
        f"| | {' | '.join(sides)} | {' | '.join(f'Paddler / {side}' for side in sides[1:])} |",
        f"|---|{'---:|' * (2 * len(sides) - 1)}",
    ]
    for figure in ALL:
        if (row := ratios.get(figure.name)) is None:
            continue
        values = [value_told(value, row.unit) for value in row.medians]
        told = [ratio_told(*one) for one in zip(row.ratios, row.lowest, row.highest, strict=True)]
        better = "more" if row.is_more_better else "less"
        lines.append(f"| {row.figure}, {row.unit} ({better} is better) | {' | '.join([*values, *told])} |")
    answered = [f"{sum(map(_ok, one.rounds)):,} of {sum(map(_all, one.rounds)):,}" for one in report.targets]
    lines.append(f"| answered, all rounds | {' | '.join(answered)} |{' |' * (len(sides) - 1)}")
    lines += ["", *(f"- {line}" for line in verdicts(versus)), ""]
    return "\n".join(lines)


def verdicts(versus: Versus) -> list[str]:
    """The goals, and the errors by their kind."""
    targets = versus.report.targets
    ttft, hits = (_figure(name) for name in ("TTFT mean", "cache hits"))
    found: list[str] = []
    for target in targets[1:]:
        for figure, goal, is_inverse, words in (
            (ttft, FASTER, True, "mean TTFT"),
            (hits, MORE_HITS, False, "cache hits"),
        ):
            ours, theirs = (median([figure.read(one) for one in every.rounds]) for every in (targets[0], target))
            if ours and theirs:
                factor = theirs / ours if is_inverse else ours / theirs
                met = "met" if factor >= goal else "MISSED"
                found.append(f"{met}: {words} {factor:.2f} times better than {target.label}'s, goal {goal:g}")
    for target in targets:
        errors: dict[str, int] = {}
        for one in target.rounds:
            for kind, number in one.errors.items():
                errors[kind] = errors.get(kind, 0) + number
        told = ", ".join(f"{number} times {kind}" for kind, number in errors.items()) or "no errors"
        found.append(f"{target.label}: {told}")
    return found


def write_into(path: Path, section: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Between the marks of a file that has them."""
    text = path.read_text()
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"{path} has no place for it: the lines {marks[0].strip()} and {marks[1].strip()}")
    path.write_text(f"{before}{begin}\n{section}\n{end}{after}")


def _figure(name: str) -> Figure:
    return next(one for one in ALL if one.name == name)


def _ok(summary: Summary) -> int:
    return summary.num_ok


def _all(summary: Summary) -> int:
    return summary.num_requests
