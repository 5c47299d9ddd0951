"""The top of the screen: where this is, how it stands, what the last minutes were like."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from paddler.dashboard import words
from paddler.dashboard.picture import Picture
from paddler.dashboard.text import amount, fit, printable, sparkline

TITLE = "paddler"


class Heading(Static):
    """Four lines: the address and whether it answers, the pool in numbers, two sparklines, the tabs."""

    def draw(self, picture: Picture, where: str, now: float, *, is_requests: bool, filter_text: str) -> None:
        width = self.size.width
        text = Text(no_wrap=True, overflow="crop")
        text.append_text(_first(picture, where, now, width)).append("\n")
        numbers = words.summary(picture)
        text.append(fit(numbers, width)).append("\n")
        text.append_text(_sparklines(picture, width)).append("\n")
        text.append_text(_tabs(picture, is_requests=is_requests, filter_text=filter_text))
        self.update(text, layout=False)  # as high as before: nothing else moves


def _first(picture: Picture, where: str, now: float, width: int) -> Text:
    trouble = picture.trouble
    left = f"{TITLE}  {where}  pool {picture.pool_name}"
    if trouble is None:
        right = "live" if picture.is_known else "connecting"
        return Text(fit(left, width - len(right) - 1) + " ").append(right, style="green")
    if not picture.is_known:
        return Text(fit(left, width - len("no answer") - 1) + " ").append("no answer", style="bold red")
    return Text(fit(words.offline(trouble, now), width), style="bold red reverse")


def _sparklines(picture: Picture, width: int) -> Text:
    each = (width - 2) // 2
    waiting = "-" if picture.waiting is None else amount(picture.waiting)
    rate = amount(picture.tokens_per_second) if picture.is_known else "-"
    text = Text()
    for number, (name, latest, samples, style) in enumerate(
        (("buffer", waiting, picture.buffer, "yellow"), ("tok/s", rate, picture.tokens, "cyan"))
    ):
        label = f"{name} {latest:>4} "
        text.append("  " if number else "")
        text.append(label, style="bold").append(sparkline(samples.values, each - len(label)), style=style)
    return text


def _tabs(picture: Picture, *, is_requests: bool, filter_text: str) -> Text:
    pool = picture.pool
    unfinished = None if pool is None else pool.demand + pool.demand_batch
    text = Text()
    for name, number, is_shown in (
        ("1 Agents", len(picture.agents) if picture.is_known else None, not is_requests),
        ("2 Requests", unfinished, is_requests),
    ):
        label = f" {name} {'' if number is None else f'{number:,} '}"
        text.append(label, style="reverse" if is_shown else "").append(" ")
    if filter_text:
        text.append(f" filter: {printable(filter_text)}", style="yellow")
    return text
