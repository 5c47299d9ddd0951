"""What `paddler prefixes` prints, within 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class AgentInfo(Struct):
    agent: str
    state: str
    tokens: int
    bytes: int
    agent_name: str | None = None
    detail: str | None = None


class PrefixInfo(Struct):
    """As `GET /api/v1/prefixes` tells it."""

    name: str
    version: int
    size: int
    created_at: str
    hits: int
    bytes: int
    agents: list[AgentInfo]
    author: str = ""
    tenant: str | None = None
    tokens: int | None = None


class PrefixInfos(Struct):
    prefixes: list[PrefixInfo]


def prefixes_table(prefixes: Sequence[PrefixInfo]) -> Table:
    table = _table()
    table.add_column("name", overflow="fold")
    table.add_column("for", overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("hits", justify="right", no_wrap=True)
    table.add_column("held", justify="right", no_wrap=True)
    table.add_column("agents", overflow="fold")
    for one in prefixes:
        tokens = "" if one.tokens is None else f"{one.tokens:,}"
        table.add_row(one.name, _who(one), tokens, f"{one.hits:,}", _size(one.bytes), _agents(one))
    return table


def prefix_block(one: PrefixInfo) -> Iterator[RenderableType]:
    """A heading, facts, a line an agent, and why some refuse it."""
    yield Text.assemble(("prefix ", "dim"), (one.name, "bold"), ("  version ", "dim"), str(one.version))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("for", _who(one))
    facts.add_row("pinned", f"{one.created_at} by {one.author or 'somebody'}")
    tokens = "no agent has counted its tokens yet" if one.tokens is None else f"{one.tokens:,} tokens"
    facts.add_row("size", f"{one.size:,} bytes, {tokens}")
    facts.add_row("hits", f"{one.hits:,} requests began with it and found it computed")
    facts.add_row("held", f"{_size(one.bytes)} by {len(one.agents)} agent{'s' * (len(one.agents) != 1)}")
    yield Padding(facts, (0, 0, 0, 2), expand=False)
    if one.agents:
        table = _table()
        for name in ("agent", "name", "state"):
            table.add_column(name, overflow="fold")
        table.add_column("held", justify="right", no_wrap=True)
        for agent in one.agents:
            table.add_row(agent.agent, agent.agent_name or "", agent.state, _size(agent.bytes))
        yield Padding(table, (1, 0, 0, 2), expand=False)
    for detail in dict.fromkeys(agent.detail for agent in one.agents if agent.detail):
        yield Padding(Text(f"refused: {detail}", style="yellow"), (1, 0, 0, 2))


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")


def _who(one: PrefixInfo) -> str:
    return "everybody" if one.tenant is None else one.tenant


def _agents(one: PrefixInfo) -> str:
    states = Counter(agent.state for agent in one.agents)
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes else "0"
