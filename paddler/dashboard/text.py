"""Text for a terminal: pure, and fit for names that others have chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size

BARS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """What a terminal would take for a command, or a line's end, shows as `�`: names come from whoever has a key."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "�" for one in text)


def paragraphs(text: str) -> str:
    """The same, with its lines."""
    return "\n".join(printable(line) for line in text.replace("\t", "    ").splitlines())


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Exactly so many cells; what is longer ends in `…`."""
    text = printable(text)
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def short(ms: float) -> str:
    """A duration in at most six cells: `0.8 s`, `59 s`, `4m05s`, `3h12m`, `12 d`."""
    seconds = max(0.0, ms) / 1000
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 100 else f"{hours // 24} d"


def amount(value: float) -> str:
    """A number in at most four cells: `7.4`, `124`, `12k`, `3M`."""
    if value < 9.95:
        return f"{value:.1f}".removesuffix(".0")
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.0f}{unit}"
    return f"{value:.0f}"


def sparkline(values: Sequence[float | None], width: int, *, top: float | None = None) -> str:
    """The last values, one a cell, the newest to the right; None is a gap. The highest bar is `top`, else the greatest
    value. A value above 0 is never drawn as one of 0."""
    shown = list(values[-width:]) if width > 0 else list[float | None]()
    most = top or max((value for value in shown if value is not None), default=0.0)
    bars = [_bar(value, most) for value in shown]
    return " " * (width - len(bars)) + "".join(bars)


def _bar(value: float | None, most: float) -> str:
    if value is None:
        return " "
    if value <= 0 or most <= 0:
        return BARS[0]
    return BARS[min(len(BARS) - 1, max(1, round(value / most * (len(BARS) - 1))))]


def gauge(part: float, width: int) -> str:
    """How much of a whole, 0 to 1, as a bar."""
    full = round(min(1.0, max(0.0, part)) * width)
    return "█" * full + "░" * (width - full)


def joined(parts: Iterable[str | None], between: str = ", ") -> str:
    return between.join(part for part in parts if part)
