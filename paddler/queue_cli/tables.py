"""What `paddler queue` prints, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paddler.issues import Issue
from paddler.jobs.lanes import Lane
from paddler.jobs.models import DEFAULT_POOL
from paddler.jobs.overview import DeadLetter, PoolQueue, Waiting
from paddler.telling import tier
from paddler.tier_stats import TIER_COUNTERS, TIER_COUNTS, TIERS, counter_name

NO_WORKER = "No worker runs: what dead agents and balancers leave may stay behind. Start `paddler worker`."
NO_AGENT = "no agent; what waits is served by the first to come: paddler agent"


def duration(ms: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`, `3 h 12 min`."""
    if ms < 1000:
        return f"{round(ms)} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def pool_block(queue: PoolQueue) -> Iterator[RenderableType]:
    """One pool: a heading, what waits and works, its agents, what happened so far."""
    yield Text.assemble(("pool ", "dim"), (queue.pool, "bold"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("waiting", _waiting(queue))
    facts.add_row("demand", f"{queue.demand} unfinished, and {queue.demand_batch} of class batch")
    facts.add_row("backlog", f"{queue.backlog_tokens:,} tokens wait to be computed")
    if queue.dead_letters:
        where = "" if queue.pool == DEFAULT_POOL else f" --pool {queue.pool}"
        letters = f"{queue.dead_letters} dead letter{'s' if queue.dead_letters > 1 else ''}: paddler queue dead{where}"
        facts.add_row("dead", Text(letters, style="red"))
    if not queue.lanes:
        facts.add_row("agents", Text(NO_AGENT, style="yellow"))
    facts.add_row("so far", _counters(queue.counters))
    for name in TIERS:
        counts = {what: queue.counters.get(counter_name(name, what), 0) for what in TIER_COUNTS}
        if any(counts.values()):
            facts.add_row(f"tier {name}", tier(counts, 0, 0))
    yield Padding(facts, (0, 0, 0, 2), expand=False)
    if queue.lanes:
        yield Padding(lanes_table(queue.lanes), (1, 0, 0, 2), expand=False)
    for lane in queue.lanes:
        for issue in lane.issues:
            yield Padding(issue_block(lane, issue), (1, 0, 0, 2), expand=False)


def lanes_table(lanes: list[Lane]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("agent", no_wrap=True)
    table.add_column("name", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("state", no_wrap=True)
    for name in ("slots", "prefill", "tok/s", "lease"):
        table.add_column(name, justify="right", no_wrap=True)
    for lane in lanes:
        is_lost = lane.lease_left_ms <= 0
        table.add_row(
            lane.agent,
            lane.name,
            Text("lost" if is_lost else _state(lane), style="red" if is_lost or lane.issues else ""),
            f"{lane.requests}/{lane.slots}",
            "-" if lane.prefill is None else f"{lane.prefill:,.0f}",
            "-" if lane.rate is None else f"{lane.rate:,.0f}",
            "over" if is_lost else duration(lane.lease_left_ms),
        )
    return table


def _state(lane: Lane) -> str:
    if lane.state == "waiting" and (done := str(lane.download)):
        return f"downloading {done}"
    if lane.state != "loading" or lane.phase is None:
        return lane.state
    return f"{lane.phase} {lane.progress:.0%}" if lane.progress else lane.phase


def issue_block(lane: Lane, issue: Issue) -> Table:
    """What is wrong with an agent, what Paddler does about it and what can be done."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("issue", Text(f"{lane.name or lane.agent}: {issue.kind}", style="red"))
    table.add_row("", Text(issue.detail))
    table.add_row("Paddler", Text(issue.action))
    table.add_row("you", Text(issue.remedy))
    return table


def waiting_table(waiting: list[Waiting]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    table.add_column("class", no_wrap=True)
    table.add_column("tenant", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("waited", justify="right", no_wrap=True)
    table.add_column("prompt", justify="right", no_wrap=True)
    for one in waiting:
        promoted = "" if one.served_as == one.request_class else "↑"
        table.add_row(
            str(one.position),
            one.id,
            one.request_class + promoted,
            one.tenant,
            duration(one.waited_ms),
            f"{one.prompt_tokens:,}",
        )
    return table


def dead_table(letters: list[DeadLetter], now_ms: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("id", overflow="fold")
    table.add_column("died", justify="right", no_wrap=True)
    table.add_column("deaths", justify="right", no_wrap=True)
    table.add_column("tenant", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("", no_wrap=True)
    for one in letters:
        state = "can be requeued" if one.can_requeue else "forgotten"
        table.add_row(one.id, f"{duration(now_ms - one.died_ms)} ago", str(one.deaths), one.tenant or "-", state)
    return table


def _waiting(queue: PoolQueue) -> str:
    each = ", ".join(f"{number} {request_class}" for request_class, number in queue.waiting.items())
    if queue.oldest_wait_ms is None:
        return "nothing"
    return f"{each}; the oldest for {duration(queue.oldest_wait_ms)}"


def _counters(counters: dict[str, int]) -> Text:
    text = Text("nothing yet" if not any(counters.values()) else "")
    for name, number in counters.items():
        if number and name not in TIER_COUNTERS:
            # A pair is not torn apart at the end of a line.
            style = "red" if name.startswith("repaired_") else ""
            text.append(f"{name}\u00a0{number:,}", style=style).append("  ")
    return text
