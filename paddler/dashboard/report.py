"""The dashboard without a terminal: a table once, or JSON, once or whenever something has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import quote

from msgspec import Struct
from msgspec.json import Encoder
from msgspec.structs import replace
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from paddler.clock import Clock
from paddler.dashboard import words
from paddler.dashboard.client import Management
from paddler.dashboard.columns import AGENTS, TONES, Cell, Shown, fitted
from paddler.dashboard.details import issue_block
from paddler.dashboard.feed import Feed
from paddler.dashboard.objects import Agent, AgentList, Pool, PoolList
from paddler.dashboard.picture import Picture
from paddler.dashboard.text import fit

TOGETHER_S = 0.25
"""Changes that follow each other as quickly are one line."""

encode = Encoder().encode


class Snapshot(Struct, frozen=True, kw_only=True):
    """What `--json` prints. `pool` and `agents` are as in `GET /api/v1/pools/{name}` and `.../agents`; while `online`
    is false they are what was known last, and `error` says why nothing newer is."""

    management: str
    pool_name: str
    online: bool
    error: str | None
    requests_buffered: int | None
    worker: bool
    pool: Pool | None
    agents: list[Agent]


async def read_once(management: Management, pool_name: str, clock: Clock) -> Picture:
    """As it is now. Raises `CannotTalk`."""
    base = f"/api/v1/pools/{quote(pool_name, safe='')}"
    picture = Picture(pool_name)
    pool = await management.get(base, Pool)
    picture.pool_told(pool)
    picture.waiting_told(sum(pool.waiting.values()))
    agents = await management.get(f"{base}/agents", AgentList)
    picture.agents_told(agents.agents, clock.monotonic())
    picture.heard("agents", clock.monotonic())
    pools = await management.get("/api/v1/pools", PoolList)
    picture.pools_told([one.name for one in pools.pools], has_worker=pools.worker)
    return picture


def snapshot(picture: Picture, where: str) -> Snapshot:
    trouble = picture.trouble
    return Snapshot(
        management=where,
        pool_name=picture.pool_name,
        online=picture.is_known and trouble is None,
        error=trouble.words if trouble else None,
        requests_buffered=picture.waiting,
        worker=picture.has_worker,
        pool=picture.pool,
        agents=picture.agents,
    )


async def watch(management: Management, where: str, pool_name: str, clock: Clock, say: Callable[[bytes], None]) -> None:
    """Call `say` with a line at first, and whenever something has changed; never returns. What changes all the time,
    the age of leases, is left out."""
    picture = Picture(pool_name)
    feeding = asyncio.create_task(Feed(management, picture, clock).run())
    told = b""
    try:
        while not feeding.done():
            if (picture.is_known and picture.pool) or picture.trouble:
                agents = [replace(agent, since_renewal_ms=None) for agent in picture.agents]
                line = encode(replace(snapshot(picture, where), agents=agents))
                if line != told:
                    say(line)
                    told = line
            await clock.sleep(TOGETHER_S)
        await feeding
    finally:
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding


def blocks(picture: Picture, now: float, width: int) -> Iterator[RenderableType]:
    """The table of agents, with the pool in numbers above it and their issues below."""
    waiting = f"waiting {picture.waiting}"
    numbers = words.summary(picture)
    yield Text(f"pool {picture.pool_name}  {waiting}  {numbers}")
    yield Text("")
    if not picture.agents:
        yield Text(words.no_agent(picture.pool_name, picture.waiting))
        return
    columns = fitted(AGENTS, width)
    yield _line([Cell(column.title) for column, _ in columns], width)
    for agent in picture.agents:
        shown = Shown(agent, picture.updated_s(agent, now))
        yield _line([column.cell(shown) for column, _ in columns], width)
    for agent in picture.agents:
        for issue in agent.issue_details:
            yield Padding(issue_block(issue, agent.label), (1, 0, 0, 0), expand=False)


def print_table(picture: Picture, now: float) -> None:
    console = Console(highlight=False)
    for block in blocks(picture, now, console.width):
        console.print(block)


def _line(cells: list[Cell], width: int) -> Text:
    text = Text(no_wrap=True, overflow="crop")
    for number, ((column, room), cell) in enumerate(zip(fitted(AGENTS, width), cells, strict=True)):
        text.append("  " if number else "")
        text.append(fit(cell.text, room, right=column.right), style=TONES[cell.tone])
    text.rstrip()
    return text
