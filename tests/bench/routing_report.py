"""Figures of `routing.py` as a Markdown table and as an SVG plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from msgspec import Struct

COLOURS = ("#999999", "#000000", "#56b4e9", "#e69f00", "#cc79a7", "#0072b2", "#f0e442", "#d55e00", "#009e73")
WIDTH, HEIGHT = 420, 300
LEFT, TOP, GAP = 60, 40, 70
TICKS_S = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)


class Row(Struct, frozen=True, kw_only=True):
    """One policy in one scenario, all seeds together. Times in seconds, `hit_rate` of prompt tokens."""

    scenario: str
    load: float
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


class _Panel:
    """One plot area with its axes; `place` maps values to pixels."""

    def __init__(self, number: int, title: str, loads: Sequence[float], low: float, high: float) -> None:
        self._left = LEFT + number * (WIDTH + GAP)
        self._loads = loads
        self._low, self._high = low, high
        self.parts = [
            f'<text x="{self._left}" y="{TOP - 14}" font-weight="bold">{escape(title)}</text>',
            f'<rect x="{self._left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>',
        ]
        for load in loads:
            x, _ = self._place(load, low)
            self.parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{load:g}</text>')
        middle = self._left + WIDTH / 2
        self.parts.append(f'<text x="{middle}" y="{TOP + HEIGHT + 36}" text-anchor="middle">load</text>')

    def _place(self, load: float, value: float) -> tuple[float, float]:
        span = max(self._loads[-1] - self._loads[0], 1e-9)
        x = self._left + 16 + (WIDTH - 32) * (load - self._loads[0]) / span
        part = (value - self._low) / (self._high - self._low)
        return x, TOP + HEIGHT * (1 - min(max(part, 0.0), 1.0))

    def tick(self, value: float, label: str) -> None:
        _, y = self._place(self._loads[0], value)
        end = self._left + WIDTH
        self.parts.append(f'<line x1="{self._left}" y1="{y:.1f}" x2="{end}" y2="{y:.1f}" stroke="#ddd"/>')
        self.parts.append(f'<text x="{self._left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        places = [self._place(load, value) for load, value in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]


def svg(rows: Sequence[Row]) -> str:
    """Mean TTFT (logarithmic) and hit rate over load, a line a policy. `rows` are those of the plain fleet."""
    loads = sorted({row.load for row in rows})
    policies = list(dict.fromkeys(row.policy for row in rows))
    ttft = _Panel(0, "mean time to first token, s", loads, math.log10(0.4), math.log10(200))
    hits = _Panel(1, "prompt tokens from the KV cache, %", loads, 0, 100)
    for tick in TICKS_S:
        ttft.tick(math.log10(tick), f"{tick:g}")
    for percent in range(0, 101, 20):
        hits.tick(percent, str(percent))
    legend: list[str] = []
    x = LEFT + 2 * (WIDTH + GAP) - 30
    for number, policy in enumerate(policies):
        mine = sorted((row for row in rows if row.policy == policy), key=lambda row: row.load)
        colour = COLOURS[number % len(COLOURS)]
        width = 3.5 if policy.startswith("Paddler") else 1.5
        ttft.line([(row.load, math.log10(max(row.ttft_mean, 1e-3))) for row in mine], colour, width)
        hits.line([(row.load, 100 * row.hit_rate) for row in mine], colour, width)
        y = TOP + 16 + 22 * number
        legend.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>')
        legend.append(f'<text x="{x + 28}" y="{y}">{escape(policy)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x + 240}" height="{TOP + HEIGHT + 50}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
    )
    return head + "\n".join(ttft.parts + hits.parts + legend) + "\n</svg>\n"
