"""`paddler usage`: what tenants have used."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import cast

import rich_click as click
from rich.console import RenderableType

from paddler.batches.quota import Holding, read_holdings
from paddler.clock import SystemClock
from paddler.keys_cli import tables
from paddler.redis_cli import Server, print_blocks, print_json, run
from paddler.settings import option, redis_options
from paddler.store.client import Store
from paddler.tenants.accounting import Accountant
from paddler.tenants.keys import ApiKeys
from paddler.tenants.usage import GROUPS, MAX_DAYS, Group, UsageRow, grouped, read_usage, today

DEFAULT_DAYS = 30

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command(name="usage")
@option("--from", "first", type=_DAY, help="The first day (UTC), by default 30 days ago.")
@option("--to", "last", type=_DAY, help="The last day (UTC), by default today.")
@option("--tenant", help="Only this tenant.")
@option(
    "--by",
    type=click.Choice(GROUPS),
    multiple=True,
    default=("tenant", "key", "model"),
    help="What makes a row of its own. May be said again.",
)
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@redis_options
def command(
    *,
    first: datetime | None,
    last: datetime | None,
    tenant: str | None,
    by: tuple[str, ...],
    as_json: bool,
    redis_url: str,
    redis_prefix: str,
) -> None:
    """Show requests and tokens by tenant, key and model: of what has ended, and was asked for with an API key; and the
    files and batches that tenants hold now."""
    clock = SystemClock()
    until = today(clock.wall()) if last is None else last.date()
    since = until - timedelta(days=DEFAULT_DAYS) if first is None else first.date()
    if not 0 <= (until - since).days < MAX_DAYS:
        raise click.BadParameter(f"not behind --to, nor {MAX_DAYS} days before it.", param_hint="--from")
    groups = cast("tuple[Group, ...]", tuple(group for group in GROUPS if group in by))

    async def act(store: Store) -> tuple[list[UsageRow], list[Holding]]:
        # What has ended a moment ago is in it, too.
        await Accountant(store).run_once()
        rows = grouped(await _read(store, clock, since, until, tenant), groups)
        return rows, await read_holdings(store, tenant=tenant)

    rows, held = run(Server(redis_url, redis_prefix), act)
    if as_json:
        print_json({"from": since, "to": until, "group_by": groups, "usage": rows, "held": held})
    else:
        blocks: list[RenderableType] = [tables.usage_table(rows, groups) if rows else tables.NO_USAGE]
        print_blocks([*blocks, *(("", "Held now:", tables.holdings_table(held)) if held else ())])


async def _read(store: Store, clock: SystemClock, since: date, until: date, tenant: str | None) -> list[UsageRow]:
    return await read_usage(store, ApiKeys(store, clock), since, until, tenant=tenant)
