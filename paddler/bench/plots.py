"""Plots as SVG for the page. Colours are classes that its style sheet has for light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from msgspec import Struct

from paddler.bench.report import Series
from paddler.bench.samples import Outcome, Sample
from paddler.bench.summary import in_flight

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40
MAX_POINTS = 2000
"""Of one series: more are thinned out evenly, and nobody sees the difference."""
MAX_STEPS = 400
TICKS = tuple(factor * 10.0**power for power in range(-3, 8) for factor in (1, 2, 5))

Point = tuple[float, float]


class Axis(Struct, frozen=True):
    """From `low` to `high`, both included."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    is_logarithmic: bool = False

    def at(self, value: float) -> float:
        """0 at the lower end, 1 at the upper one."""
        if self.is_logarithmic:
            low, high, value = math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low))
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)


def linear(title: str, highest: float) -> Axis:
    """From 0."""
    step = next((tick for tick in TICKS if tick * 6 >= highest), TICKS[-1])
    number = max(1, math.ceil(highest / step))
    return Axis(title, 0.0, step * number, [step * at for at in range(number + 1)])


def logarithmic(title: str, values: Sequence[float]) -> Axis:
    """Four powers of ten at most: chunks that came in one packet have no time between them."""
    highest = max(*values, TICKS[1])
    lowest = max(min(values), highest / 1e4, TICKS[0])
    first = max((at for at, tick in enumerate(TICKS) if tick <= lowest), default=0)
    last = next((at for at, tick in enumerate(TICKS) if tick >= highest and at > first), len(TICKS) - 1)
    ticks = list(TICKS[first : last + 1])
    shown = ticks if len(ticks) <= 9 else [tick for tick in ticks if math.log10(tick).is_integer()]
    return Axis(title, ticks[0], ticks[-1], shown, True)


class Plot:
    """Parts are drawn in the order of the calls."""

    def __init__(self, title: str, across: Axis, upwards: Axis) -> None:
        self._title = title
        self._across = across
        self._upwards = upwards
        self._parts: list[str] = []
        for tick in across.ticks:
            x = self._x(tick)
            self._parts.append(f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}"/>')
            self._text(x, HEIGHT - BOTTOM + 15, _number(tick), "middle")
        for tick in upwards.ticks:
            y = self._y(tick)
            self._parts.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
            self._text(LEFT - 6, y + 4, _number(tick), "end")
        self._text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across.title, "middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = f'transform="rotate(-90 12 {middle})"'
        self._parts.append(f'<text x="12" y="{middle}" text-anchor="middle" {turned}>{escape(upwards.title)}</text>')

    def line(self, points: Sequence[Point], colour: int) -> None:
        path = " ".join(f"{self._x(x)},{self._y(y)}" for x, y in points)
        self._parts.append(f'<polyline class="s{colour}" points="{path}"/>')

    def dots(self, points: Sequence[Point], colour: int) -> None:
        for x, y in _thinned(points, MAX_POINTS):
            self._parts.append(f'<circle class="s{colour}" cx="{self._x(x)}" cy="{self._y(y)}" r="2"/>')

    def failures(self, times: Sequence[float]) -> None:
        """Ticks at the upper edge."""
        for x, _ in _thinned([(time, 0.0) for time in times], MAX_POINTS):
            self._parts.append(f'<line class="bad" x1="{self._x(x)}" y1="{TOP}" x2="{self._x(x)}" y2="{TOP + 9}"/>')

    def svg(self) -> str:
        name = escape(self._title, quote=True)
        head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        return f"{head}{''.join(self._parts)}</svg>"

    def _x(self, value: float) -> float:
        return round(LEFT + self._across.at(value) * (WIDTH - LEFT - RIGHT), 1)

    def _y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - self._upwards.at(value) * (HEIGHT - TOP - BOTTOM), 1)

    def _text(self, x: float, y: float, words: str, anchor: str) -> None:
        self._parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>')


def distribution_plot(title: str, series: Sequence[Series], read: Callable[[Sample], Sequence[float]]) -> str | None:
    """What share of the values, in ms, is below which; of all rounds together. None without values."""
    rows = [
        sorted(value * 1e3 for row in one.rounds for sample in row if sample.is_timed for value in read(sample))
        for one in series
    ]
    values = [value for row in rows for value in row]
    if not values:
        return None
    plot = Plot(title, logarithmic("ms", values), linear("% of values", 100.0))
    for colour, row in enumerate(rows):
        if row:
            at = sorted({min(len(row) - 1, step * len(row) // MAX_STEPS) for step in range(MAX_STEPS + 1)})
            plot.line([(row[0], 0.0), *((row[n], 100.0 * (n + 1) / len(row)) for n in at)], colour % 6)
    return plot.svg()


def course_plot(title: str, series: Sequence[Series], read: Callable[[Sample], float | None]) -> str | None:
    """A value of each request, in ms, by when it was due; failures are ticks at the upper edge."""
    rows = [
        [
            (sample.scheduled_s, value * 1e3)
            for row in one.rounds
            for sample in row
            if sample.is_timed and (value := read(sample)) is not None
        ]
        for one in series
    ]
    points = [point for row in rows for point in row]
    if not points:
        return None
    failed = [
        sample.scheduled_s for one in series for row in one.rounds for sample in row if sample.outcome is Outcome.FAILED
    ]
    last_s = max(*(x for x, _ in points), *failed, 0.1)
    plot = Plot(title, linear("due at, s", last_s), logarithmic("ms", [y for _, y in points]))
    for colour, row in enumerate(rows):
        plot.dots(row, colour)
    plot.failures(failed)
    return plot.svg()


def crowd_plot(title: str, series: Sequence[Series]) -> str | None:
    """Requests under way over time, of each target's last round."""
    rows = [_steps(one.rounds[-1]) if one.rounds else [] for one in series]
    points = [point for row in rows for point in row]
    if not points:
        return None
    across, upwards = linear("s", max(x for x, _ in points)), linear("requests", max(y for _, y in points))
    plot = Plot(title, across, upwards)
    for colour, row in enumerate(rows):
        plot.line(row, colour % 6)
    return plot.svg()


def _steps(samples: Sequence[Sample]) -> list[Point]:
    last_s = max((sample.end_s or sample.sent_s for sample in samples), default=0.0)
    points: list[Point] = [(0.0, 0.0)]
    for at_s, number in _thinned(in_flight(samples, last_s), MAX_POINTS):
        points += [(at_s, points[-1][1]), (at_s, float(number))]
    return points


def _thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    return points if len(points) <= most else [points[at * len(points) // most] for at in range(most)]


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
