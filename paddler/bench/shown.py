"""What `paddler bench` prints, within 100 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from paddler.bench.report import Measured, Report, median, num_compared
from paddler.bench.summary import Distribution, Summary

LATE_MS = 20.0
"""A generator that is later than this at its 99th percentile measures itself as well."""
LATENCIES = {"TTFT": "ttft_ms", "ITL": "itl_ms", "gap": "gap_ms", "end to end": "e2e_ms"}


def report_blocks(report: Report) -> Iterator[RenderableType]:
    for measured in report.targets:
        yield Text(f"{measured.label}  {measured.model}", style="bold")
        for number, summary in enumerate(measured.rounds, 1):
            if len(measured.rounds) > 1:
                yield Text(f"round {number}", style="dim")
            yield latency_table(summary)
            yield facts_table(summary)
            for note, style in notes(summary):
                yield Text(note, style=style)
            yield ""
    if report.comparison:
        yield comparison_table(report)
    yield Text(f"--seed {report.seed} asks the same again.", style="dim")
    if not report.is_tokens_measured and "tokens-per-word" not in report.options:
        yield Text("The target does not tell how many tokens a prompt has: a word was taken for one.", style="yellow")


def latency_table(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("ms", no_wrap=True, style="dim", min_width=13)
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(name, justify="right", no_wrap=True, min_width=9)
    for name, attribute in LATENCIES.items():
        found: Distribution | None = getattr(summary, attribute)
        if found is not None:
            table.add_row(name, *(_ms(value) for value in figures(found)))
    return table


def figures(found: Distribution) -> tuple[float, ...]:
    return (found.mean, found.p50, found.p90, found.p95, found.p99, found.max)


def facts_table(summary: Summary) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=13)
    table.add_column()
    for name, words in facts(summary):
        table.add_row(name, words)
    return table


def facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """The figures that are no latencies, in words."""
    parts = [f"{summary.num_ok:,} of {summary.num_requests:,} answered in {summary.window_s:.1f} s"]
    for number, word in (
        (summary.num_failed, "failed"),
        (summary.num_cancelled, "left on purpose"),
        (summary.num_unfinished, "unfinished"),
    ):
        if number:
            parts.append(f"{number:,} {word}")
    yield "requests", ", ".join(parts)
    tokens = f"{summary.output_tokens_s:.1f} output tokens/s, {summary.prompt_tokens_s:.1f} prompt tokens/s"
    yield "rates", f"{summary.requests_s:.2f} requests/s, {tokens}"
    yield "in flight", f"{summary.mean_in_flight:.1f} on average, {summary.max_in_flight} at most"
    if summary.goodput is not None:
        good = summary.goodput
        yield "goodput", f"{good.share:.1%} kept {' '.join(good.goals)}: {good.requests_s:.2f} requests/s"
    if summary.hit_rate is None:
        yield "cache hits", "not told (usage.prompt_tokens_details.cached_tokens)"
    else:
        yield "cache hits", f"{summary.hit_rate:.1%} of {summary.told_prompt_tokens:,} prompt tokens"
    for error, number in summary.errors.items():
        yield error, f"{number:,}, such as: {summary.error_examples[error]}"
    sent, own = summary.send_lag_ms, summary.generator_lag_ms
    if sent is not None:
        was = f"; its clock {own.p99:.1f} ms at p99" if own is not None else ""
        yield "generator", f"sent {sent.p50:.1f} ms late at p50, {sent.p99:.1f} ms at p99{was}"


def notes(summary: Summary) -> Iterator[tuple[str, str]]:
    """What must be known to read the figures, with a style."""
    if summary.is_stopped:
        yield "Stopped before its end: these are the figures until then.", "yellow"
    if summary.num_counted_by_chunks:
        number = summary.num_counted_by_chunks
        yield f"{number:,} answers had no usage: a chunk was counted as a token, and nothing of prompts.", "yellow"
    own = summary.generator_lag_ms
    if own is not None and own.p99 > LATE_MS:
        words = f"The generator came {own.p99:.0f} ms late at p99, and its times are as wrong: "
        yield words + "use fewer streams, or a machine with a core for it.", "yellow"


def comparison_table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column(f"medians of {rounds_told(report.targets)}", no_wrap=True)
    for measured in report.targets:
        table.add_column(measured.label, justify="right", overflow="fold")
    for measured in report.targets[1:]:
        table.add_column(f"{report.targets[0].label} / {measured.label}", justify="right", overflow="fold")
    for row in report.comparison:
        name = f"{row.figure} ({row.unit})"
        ratios = [
            ratio_told(ratio, low, high) for ratio, low, high in zip(row.ratios, row.lowest, row.highest, strict=True)
        ]
        table.add_row(name, *(value_told(value, row.unit) for value in row.medians), *ratios)
    return table


def rounds_told(targets: list[Measured]) -> str:
    number = num_compared(targets)
    return f"{number} round{'s' if number > 1 else ''}"


def value_told(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit.startswith("of "):
        return f"{value:.1%}"
    return f"{value:,.0f}" if unit == "requests" else _ms(value)


def ratio_told(ratio: float | None, low: float | None, high: float | None) -> str:
    """With what single rounds gave."""
    if ratio is None:
        return "-"
    spread = "" if low is None or high is None or low == high else f" ({low:.2f} to {high:.2f})"
    return f"{ratio:.2f}{spread}"


def median_row(measured: Measured, attribute: str) -> list[float | None]:
    """Of a latency's figures, over the rounds."""
    rows = [figures(found) for one in measured.rounds if (found := getattr(one, attribute)) is not None]
    return [median(column) for column in zip(*rows, strict=True)]


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
