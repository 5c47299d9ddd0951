"""The report as a page of its own: nothing is fetched, so it opens anywhere and can be sent to somebody."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import msgspec
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from paddler.bench.plots import course_plot, crowd_plot, distribution_plot
from paddler.bench.report import Measured, Report, Series
from paddler.bench.samples import Sample
from paddler.bench.shown import LATENCIES, facts, median_row, notes, ratio_told, rounds_told, value_told

_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


def write_page(report: Report, series: Sequence[Series]) -> str:
    """All text in it is escaped: labels, models and error messages are others'."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("paddler.bench").joinpath("page.html.jinja").read_text())
    return template.render(
        report=report,
        facts=facts,
        notes=notes,
        latencies=_latencies,
        ratio=ratio_told,
        value=value_told,
        columns=_COLUMNS,
        rounds=rounds_told(report.targets) if report.targets else "",
        plots=[(title, Markup(svg)) for title, svg in _plots(series) if svg is not None],  # our own, escaped
        options=msgspec.json.format(msgspec.json.encode(report.options), indent=2).decode(),
    )


def _latencies(measured: Measured) -> list[tuple[str, list[str]]]:
    rows = [(name, median_row(measured, attribute)) for name, attribute in LATENCIES.items()]
    return [(name, [value_told(value, "ms") for value in row]) for name, row in rows if row]


def _plots(series: Sequence[Series]) -> list[tuple[str, str | None]]:
    return [
        ("Time to first token", distribution_plot("Distribution of TTFT", series, lambda one: _known(one.ttft_s))),
        ("Time of a token after the first (ITL)", distribution_plot("Distribution of ITL", series, _itl)),
        ("Time between two chunks", distribution_plot("Distribution of gaps", series, lambda one: one.gaps_s)),
        ("End to end", distribution_plot("Distribution of end to end", series, lambda one: _known(one.e2e_s))),
        ("Time to first token, as it went", course_plot("TTFT over time", series, lambda one: one.ttft_s)),
        ("End to end, as it went", course_plot("End to end over time", series, lambda one: one.e2e_s)),
        ("Requests in flight (last round)", crowd_plot("Requests in flight", series)),
    ]


def _itl(sample: Sample) -> list[float]:
    return _known(sample.itl_s)


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]
