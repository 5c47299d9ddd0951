"""`paddler pools`: the pools in numbers."""

from __future__ import annotations

import rich_click as click
from rich.console import RenderableType

from paddler.fleet_cli import tables
from paddler.jobs.overview import Overview, PoolQueue
from paddler.redis_cli import Server, json_option, print_json, run, show, watch_option
from paddler.settings import POOL, option, redis_options
from paddler.store.client import Store


@click.command(name="pools")
@option("--pool", type=POOL, help="Only this pool; by default all.")
@json_option
@watch_option
@redis_options
def command(*, pool: str | None, as_json: bool, watch: bool, redis_url: str, redis_prefix: str) -> None:
    """Show the pools: agents, slots, what waits, what died."""
    if watch and as_json:
        raise click.UsageError("--watch draws a table; leave --json out.")
    server = Server(redis_url, redis_prefix)

    async def draw(store: Store) -> list[RenderableType]:
        return [tables.pools_table(await _read(store, pool))]

    if as_json:
        print_json(run(server, lambda store: _read(store, pool)))
    else:
        show(server, draw, watch=watch)


async def _read(store: Store, only: str | None) -> list[PoolQueue]:
    overview = Overview(store)
    names = await overview.pool_names()
    if only is not None and only not in names:
        raise click.ClickException(f"There is no pool {only!r}; there is: {', '.join(names)}.")
    return [await overview.pool(name) for name in names if only in (None, name)]
