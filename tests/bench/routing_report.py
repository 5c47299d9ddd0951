"""Figures of `routing.py` as Markdown tables and as an SVG plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise

from msgspec import Struct

COLOURS = ("#999999", "#000000", "#56b4e9", "#e69f00", "#cc79a7", "#0072b2", "#8c510a", "#d55e00", "#009e73")
WIDTH, HEIGHT = 430, 250
LEFT, TOP, RIGHT, BOTTOM = 56, 36, 14, 56
LEGEND_COLUMNS = 3
TICKS_S = tuple(factor * 10.0**power for power in range(-2, 5) for factor in (1, 2, 5))


class Row(Struct, frozen=True, kw_only=True):
    """One policy in one scenario, all seeds together. Times in seconds, `hit_rate` of prompt tokens. `note` is what is
    special about the scenario, empty for the plain fleet, whose loads are joined by lines."""

    scenario: str
    load: float
    note: str
    policy: str
    num_requests: int
    ttft_mean: float
    ttft_p50: float
    ttft_p99: float
    hit_rate: float
    claims: dict[str, int]


def markdown(rows: Sequence[Row]) -> str:
    parts: list[str] = []
    for scenario in dict.fromkeys(row.scenario for row in rows):
        parts.append(f"### {scenario}\n\n| policy | TTFT mean s | p50 s | p99 s | hit % |\n|---|---:|---:|---:|---:|\n")
        parts += [
            f"| {row.policy} | {row.ttft_mean:.2f} | {row.ttft_p50:.2f} | {row.ttft_p99:.2f} | {row.hit_rate:.1%} |\n"
            for row in rows
            if row.scenario == scenario
        ]
        parts.append("\n")
    return "".join(parts)


class _Axis(Struct, frozen=True):
    """A value axis: `ticks` are values with their labels, the first and the last one are its ends."""

    title: str
    value: Callable[[Row], float]
    ticks: Sequence[tuple[float, str]]
    is_logarithmic: bool

    def height(self, value: float) -> float:
        """0 at the lower end, 1 at the upper one."""
        scale = math.log10 if self.is_logarithmic else float
        low, high = scale(self.ticks[0][0]), scale(self.ticks[-1][0])
        return min(max((scale(max(value, self.ticks[0][0])) - low) / (high - low), 0.0), 1.0)


def _seconds(title: str, value: Callable[[Row], float], rows: Sequence[Row]) -> _Axis:
    """Logarithmic, from the last tick below all values to the first one above."""
    values = [max(value(row), TICKS_S[0]) for row in rows]
    first = max(number for number, tick in enumerate(TICKS_S) if tick <= min(values))
    last = min(number for number, tick in enumerate(TICKS_S) if tick >= max(values) and number > first)
    return _Axis(title, value, [(tick, f"{tick:g}") for tick in TICKS_S[first : last + 1]], True)


def svg(rows: Sequence[Row]) -> str:
    """Mean, median and 99th percentile of TTFT and the hit rate, a colour a policy, a column a scenario."""
    percents = [(percent, str(percent)) for percent in range(0, 101, 20)]
    axes = (
        _seconds("mean time to first token, s", lambda row: row.ttft_mean, rows),
        _seconds("median time to first token, s", lambda row: row.ttft_p50, rows),
        _seconds("99th percentile of time to first token, s", lambda row: row.ttft_p99, rows),
        _Axis("prompt tokens from the KV cache, %", lambda row: 100 * row.hit_rate, percents, False),
    )
    panel_width, panel_height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    parts: list[str] = []
    for number, axis in enumerate(axes):
        x, y = number % 2 * panel_width, number // 2 * panel_height
        parts += [f'<g transform="translate({x} {y})">', *_panel(axis, rows), "</g>"]
    policies = _policies(rows)
    for number, policy in enumerate(policies):
        x = LEFT + number % LEGEND_COLUMNS * (2 * panel_width - LEFT) // LEGEND_COLUMNS
        y = 2 * panel_height + 20 + 24 * (number // LEGEND_COLUMNS)
        colour, width = _style(policies, policy)
        parts.append(f'<path d="M{x} {y - 5}h26" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(f'<text x="{x + 34}" y="{y}">{escape(policy)}</text>')
    height = 2 * panel_height + 20 + 24 * math.ceil(len(policies) / LEGEND_COLUMNS)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * panel_width} {height}" width="{2 * panel_width}" '
        f'height="{height}" font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _panel(axis: _Axis, rows: Sequence[Row]) -> Iterator[str]:
    bottom, end = TOP + HEIGHT, LEFT + WIDTH
    yield f'<text x="{LEFT}" y="{TOP - 12}" font-weight="bold">{escape(axis.title)}</text>'
    for value, label in axis.ticks:
        y = bottom - HEIGHT * axis.height(value)
        yield f'<path d="M{LEFT} {y:.1f}H{end}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    yield f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>'
    columns = list(dict.fromkeys((row.scenario, row.load, row.note) for row in rows))
    centres: dict[str, float] = {}
    for number, (scenario, load, note) in enumerate(columns):
        x = centres[scenario] = LEFT + WIDTH * (number + 0.5) / len(columns)
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{"load " * (not number)}{load:g}</text>'
        yield f'<text x="{x:.1f}" y="{bottom + 34}" text-anchor="middle" font-size="10">{escape(note)}</text>'
        if note:
            left = LEFT + WIDTH * number / len(columns)
            yield f'<path d="M{left:.1f} {TOP}V{bottom}" stroke="#888" stroke-dasharray="2 3"/>'
    policies = _policies(rows)
    for policy in policies:
        colour, width = _style(policies, policy)
        mine = [row for row in rows if row.policy == policy]
        places = [(centres[row.scenario], bottom - HEIGHT * axis.height(axis.value(row))) for row in mine]
        for (one, (x1, y1)), (other, (x2, y2)) in pairwise(zip(mine, places, strict=True)):
            if not one.note and not other.note:
                yield f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + width / 2:g}" fill="{colour}"/>'


def _policies(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.policy for row in rows))


def _style(policies: list[str], policy: str) -> tuple[str, float]:
    """Colour and stroke width; ours are thick."""
    return COLOURS[policies.index(policy) % len(COLOURS)], 4 if policy.startswith("Paddler") else 1.5
