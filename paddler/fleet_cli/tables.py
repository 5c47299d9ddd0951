"""What `paddler pools`, `paddler agents` and `paddler requests` print, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paddler.jobs.lanes import Lane
from paddler.jobs.overview import PoolQueue
from paddler.jobs.request_list import Listed
from paddler.jobs.timeline import Timeline
from paddler.queue_cli.tables import duration, issue_block, lanes_table
from paddler.telling import begun, tier
from paddler.tier_stats import counts_of


def _table(*columns: str, right: tuple[str, ...] = (), folded: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in columns:
        is_folded = name in folded
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=not is_folded,
            overflow="fold" if is_folded else "ellipsis",
        )
    return table


def pools_table(pools: list[PoolQueue]) -> Table:
    """Slots are busy/all."""
    numbers = ("agents", "slots", "waiting", "demand", "batch", "oldest", "dead")
    table = _table("pool", *numbers, right=numbers, folded=("pool",))
    for pool in pools:
        busy = sum(min(lane.requests, lane.slots) for lane in pool.lanes)
        oldest = "-" if pool.oldest_wait_ms is None else duration(pool.oldest_wait_ms)
        table.add_row(
            pool.pool,
            str(len(pool.lanes)),
            f"{busy}/{sum(lane.slots for lane in pool.lanes)}",
            str(sum(pool.waiting.values())),
            str(pool.demand),
            str(pool.demand_batch),
            oldest,
            Text(str(pool.dead_letters), style="red" if pool.dead_letters else ""),
        )
    return table


def agents_blocks(pools: list[PoolQueue]) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    for pool in pools:
        if len(pools) > 1:
            blocks.append(Text.assemble(("pool ", "dim"), (pool.pool, "bold")))
        blocks.append(lanes_table(pool.lanes) if pool.lanes else f"No agent is in pool {pool.pool}.")
        for lane in pool.lanes:
            blocks += [Padding(issue_block(lane, issue), (1, 0, 0, 0), expand=False) for issue in lane.issues]
    return blocks


def agent_block(pool: str, lane: Lane) -> Iterator[RenderableType]:
    """All that is known of one agent."""
    table = _facts()
    state = "lost: its lease is over" if lane.is_lost else lane.state
    if lane.state == "loading" and lane.phase:
        state += f", {lane.phase}" + (f" {lane.progress:.0%}" if lane.progress else "")
    if lane.is_draining and lane.state not in ("draining", "drained"):
        state += ", drained by an operator"
    saves = lane.saved_tokens or lane.restored_tokens
    hit, speeds = lane.cache_hit_ratio, {"output": lane.rate, "prompts": lane.prefill}
    rows = {
        "name": lane.name,
        "pool": pool,
        "state": state,
        "slots": f"{lane.requests} busy of {lane.slots}" + (f", {lane.desired_slots} wanted" if not lane.slots else ""),
        "model": lane.model,
        "file": lane.model_path,
        "download": f"{lane.download.filename}, {lane.download}" if lane.download.filename else "",
        "context": f"{lane.context_size:,} tokens" if lane.context_size else "",
        "speed": ", ".join(f"{name} {speed:,.0f} tok/s" for name, speed in speeds.items() if speed is not None),
        "cache": "" if hit is None else f"{hit:.0%} of {lane.prompt_tokens:,} prompt tokens",
        "held": _held(lane),
        "host memory": f"{lane.saved_tokens:,} tokens saved, {lane.restored_tokens:,} came back" if saves else "",
        **{f"tier {one.tier}": tier(counts_of(one), one.num_bytes, one.num_blocks) for one in lane.tiers},
        "lease": "over" if lane.is_lost else f"{duration(lane.lease_left_ms)} left",
        "process": f"{lane.pid} on {lane.host}" if lane.host else "",
        "version": ", ".join(filter(None, (lane.version, lane.build))),
    }
    table.add_row("agent", lane.agent)
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    yield table
    for issue in lane.issues:
        yield Padding(issue_block(lane, issue), (1, 0, 0, 0), expand=False)


def _held(lane: Lane) -> str:
    """What is in its KV cache, and how much may be."""
    if not lane.slots or not lane.context_size:
        return ""
    of = f"{lane.held_tokens:,} of {lane.context_size:,} tokens in {lane.held_sequences} sequences"
    return f"{of}, {lane.max_parked} of them ended at most"


def requests_table(requests: list[Listed]) -> Table:
    """Of one that waits `state` is its position. The tenant, for which 80 columns have no room, is in `show`."""
    table = _table("id", "state", "class", "agent", "for", "tokens", right=("for", "tokens"))
    table.collapse_padding = True
    next(one for one in table.columns if one.header == "agent").max_width = 8
    for one in requests:
        state = one.state if one.position is None else f"#{one.position}"
        promoted = "↑" if one.served_as not in (None, one.request_class) else ""
        table.add_row(
            one.id,
            "stopping" if one.is_cancelling else state,
            one.request_class + promoted,
            one.agent_name or "-",
            duration(one.waited_ms if one.running_ms is None else one.running_ms),
            "-" if one.num_tokens is None else f"{one.num_tokens:,}",
        )
    return table


def request_block(one: Timeline) -> Iterator[RenderableType]:
    """What has happened to one request."""
    status, table = one.status, _facts()
    wait = "" if status.estimated_wait_ms is None else f", begins in about {duration(status.estimated_wait_ms)}"
    place = "" if status.position is None else f", {status.position} before it{wait}"
    cached = "" if status.route.cached_tokens is None else f", {status.route.cached_tokens:,} of them cached"
    served_as = "" if one.served_as == status.request_class else f", served as {one.served_as}"
    rows = {
        "state": ("stopping" if status.is_cancelling else status.state) + place,
        "class": status.request_class + served_as,
        "tenant": status.tenant,
        "agent": " ".join(filter(None, (one.agent_name, one.agent))),
        "model": one.model or "",
        "begun": begun(status.opens, status.deaths),
        "prompt": f"{one.prompt_tokens:,} tokens{cached}",
        "output": f"{status.route.num_tokens:,} tokens",
        "error": f"{status.error.code}: {status.error.message}" if status.error else "",
    }
    table.add_row("id", status.request_id)
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    yield table
    happened = _table("", "after", right=("after",))
    for event in one.events:
        times = f", {event.times} times, the last" if event.times > 1 else ""
        after = duration(max(0, event.at_ms - status.accepted_ms))
        happened.add_row(event.event.replace("_", " ") + times, after)
    yield Padding(happened, (1, 0, 0, 0), expand=False)


def _facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
