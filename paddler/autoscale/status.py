"""What `paddler autoscale --status` prints."""

from __future__ import annotations

from typing import Any

import rich_click as click
from msgspec import structs
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paddler.autoscale.record import Record, Records
from paddler.queue_cli.tables import duration
from paddler.redis_cli import Server, print_blocks, print_json, run
from paddler.store.client import Store


def show_status(url: str, prefix: str, pool: str, *, as_json: bool) -> None:
    """Raises `ClickException` where there is nothing to show."""

    async def read(store: Store) -> tuple[Record | None, str]:
        records = Records(store, pool)
        return await records.read(), await records.holder()

    record, holder = run(Server(url, prefix), read)
    if record is None:
        raise click.ClickException(f"No autoscaler has been heard of for pool {pool} within a day.")
    is_acting = holder == record.who
    if as_json:
        print_json(told(record, pool, is_acting=is_acting))
    else:
        print_blocks(blocks(record, pool, is_acting=is_acting))


def told(record: Record, pool: str, *, is_acting: bool) -> dict[str, Any]:
    return {"pool": pool, "is_acting": is_acting, **structs.asdict(record)}


def blocks(record: Record, pool: str, *, is_acting: bool) -> list[RenderableType]:
    policy = record.policy
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    who = f"process {record.pid} on {record.host}, driver {record.driver}"
    facts.add_row("pool", pool)
    facts.add_row("autoscaler", who if is_acting else Text(f"does not act: {who} was the last", style="red"))
    facts.add_row("agents", f"{policy.least} to {policy.most}, each with {policy.slots} slots; {record.wanted} wanted")
    facts.add_row("demand", f"{record.demand} unfinished, {policy.target:g} for each slot")
    facts.add_row("cooldown", duration(policy.cooldown_s * 1000))
    if record.held:
        facts.add_row("held", Text(f"no agent is started: {record.held}", style="red"))
    if record.failures:
        again = f"{record.failures} in a row, the last: {record.trouble}"
        facts.add_row("failures", Text(again, style="yellow"))
        if record.retry_in_s:
            facts.add_row("next try", f"in {duration(record.retry_in_s * 1000)}")
    found: list[RenderableType] = [facts]
    if record.instances:
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
        for name in ("agent", "phase", "for", "id", "process"):
            table.add_column(
                name, no_wrap=name != "process", overflow="fold", justify="right" if name == "for" else "left"
            )
        for one in record.instances:
            where = f"{one.pid} on {one.host}" if one.pid else "-"
            phase = Text(f"{one.phase}, stuck" if one.trouble else one.phase, style="red" if one.trouble else "")
            table.add_row(one.name, phase, duration(one.for_s * 1000), one.agent_id or "-", where)
        found.append(Padding(table, (1, 0, 0, 0), expand=False))
    return found
