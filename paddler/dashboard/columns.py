"""The tables: which columns a width has room for, and what a row has in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

from msgspec import Struct
from rich.style import Style

from paddler.dashboard import text
from paddler.dashboard.objects import Agent, Request

Tone = Literal["plain", "dim", "good", "busy", "warn", "bad"]
"""What a cell means; never told by its colour alone."""

TONES: dict[Tone, Style] = {
    "plain": Style(),
    "dim": Style(dim=True),
    "good": Style(color="green"),
    "busy": Style(color="cyan"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
}
"""Colours of the terminal's own sixteen, so that they fit its background and hold over any connection."""

_STATES: dict[str, Tone] = {
    "ready": "good",
    "failed": "bad",
    "lost": "bad",
    "draining": "warn",
    "drained": "warn",
    "leaving": "warn",
}

T = TypeVar("T")


class Cell(Struct, frozen=True):
    text: str
    tone: Tone = "plain"


class Column(Struct, Generic[T], frozen=True):
    """`grows` is its share of the room that is left over; `from_width` what the table must have to show it."""

    title: str
    width: int
    cell: Callable[[T], Cell]
    right: bool = False
    grows: int = 0
    from_width: int = 0


class Shown(Struct, frozen=True):
    """An agent with how long ago it was heard of."""

    agent: Agent
    updated_s: float | None


def fitted(columns: Sequence[Column[T]], width: int) -> list[tuple[Column[T], int]]:
    """Columns with their widths, two cells between them; what is left over goes to those that grow."""
    shown = [column for column in columns if column.from_width <= width]
    left = max(0, width - sum(column.width for column in shown) - 2 * (len(shown) - 1))
    shares = sum(column.grows for column in shown)
    return [(column, column.width + (left * column.grows // shares if shares else 0)) for column in shown]


def state_of(agent: Agent) -> Cell:
    """What it is doing, with how far it is."""
    if agent.state == "waiting" and agent.download_filename:
        if agent.download_indeterminate or not agent.download_total:
            return Cell(f"download {text.amount(agent.download_current)}B", "busy")
        return Cell(f"download {agent.download_current / agent.download_total:.0%}", "busy")
    if agent.state == "loading":
        done = f"{agent.progress:.0%}" if agent.progress else ""
        return Cell(text.joined((agent.phase or "loading", done), " "), "busy")
    return Cell(agent.state, _STATES.get(agent.state, "plain"))


def _issues(agent: Agent) -> Cell:
    number = max(len(agent.issue_details), len(agent.issues))
    return Cell(str(number), "bad") if number else Cell("none", "dim")


def _model(agent: Agent) -> Cell:
    name = agent.model or (agent.model_path or "").rpartition("/")[2]
    return Cell(name) if name else Cell("none", "dim")


def _updated(shown: Shown) -> Cell:
    if shown.updated_s is None:
        return Cell("-", "dim")
    return Cell(text.short(shown.updated_s * 1000), "bad" if shown.agent.state == "lost" else "plain")


def _idle(agent: Agent) -> Cell:
    return Cell(str(agent.slots_idle), "plain" if agent.slots_idle else "dim")


def _processing(agent: Agent) -> Cell:
    return Cell(str(agent.slots_processing), "busy" if agent.slots_processing else "dim")


def _speed(agent: Agent) -> Cell:
    return Cell("-", "dim") if agent.tokens_per_second is None else Cell(text.amount(agent.tokens_per_second))


def _cache(agent: Agent) -> Cell:
    return Cell("-", "dim") if agent.cache_hit_ratio is None else Cell(f"{agent.cache_hit_ratio:.0%}")


AGENTS: tuple[Column[Shown], ...] = (
    Column("Name", 13, lambda shown: Cell(shown.agent.label), grows=3),
    Column("State", 13, lambda shown: state_of(shown.agent), grows=1),
    Column("Issues", 6, lambda shown: _issues(shown.agent), right=True),
    Column("Model", 10, lambda shown: _model(shown.agent), grows=3),
    Column("tok/s", 5, lambda shown: _speed(shown.agent), right=True, from_width=100),
    Column("Cache", 5, lambda shown: _cache(shown.agent), right=True, from_width=100),
    Column("Version", 9, lambda shown: Cell(shown.agent.version or "-"), from_width=120),
    Column("Last update", 11, _updated, right=True),
    Column("Idle", 4, lambda shown: _idle(shown.agent), right=True),
    Column("Processing", 10, lambda shown: _processing(shown.agent), right=True),
)
"""Paddler 1.2's, and more where there is room."""


def state_of_request(request: Request) -> Cell:
    """Of one that waits its place: 1 is the next."""
    if request.is_cancelling:
        return Cell("stopping", "warn")
    if request.state == "waiting" and request.position is not None:
        return Cell(f"waits {request.position + 1}", "busy")
    return Cell(request.state, "good" if request.state == "running" else "plain")


def _class(request: Request) -> Cell:
    is_promoted = request.served_as not in (None, request.request_class)
    return Cell(request.request_class + ("↑" if is_promoted else ""))


def _for(request: Request) -> Cell:
    return Cell(text.short(request.waited_ms if request.running_ms is None else request.running_ms))


REQUESTS: tuple[Column[Request], ...] = (
    Column("Request", 10, lambda request: Cell(request.id.rpartition(".")[2]), grows=4),
    Column("State", 10, state_of_request),
    Column("Class", 12, _class),
    Column("Tenant", 10, lambda request: Cell(request.tenant or "-"), grows=2),
    Column("Agent", 9, lambda request: Cell(request.agent_name or request.agent or "-"), grows=2),
    Column("Model", 12, lambda request: Cell(request.model or "-"), grows=1, from_width=100),
    Column("Prompt", 6, lambda request: Cell(text.amount(request.prompt_tokens)), right=True, from_width=100),
    Column("For", 6, _for, right=True),
    Column("Tokens", 6, lambda one: Cell("-" if one.tokens is None else text.amount(one.tokens)), right=True),
)
