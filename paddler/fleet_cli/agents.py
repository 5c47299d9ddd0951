"""`paddler agents`: who works, and what an operator may tell them."""

from __future__ import annotations

from typing import Any

import rich_click as click
from rich.console import RenderableType

from paddler.clock import SystemClock
from paddler.fleet_cli import tables
from paddler.jobs.agent_orders import AgentOrders
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import Overview, PoolQueue
from paddler.redis_cli import (
    Server,
    ids_argument,
    json_option,
    print_blocks,
    print_json,
    run,
    server_of,
    server_options,
    show,
    watch_option,
)
from paddler.settings import POOL, option, redis_options
from paddler.store.client import Store
from paddler.store.results import Order

POLL_S = 0.2

_pool_option = option("--pool", type=POOL, help="Only of this pool; by default of all.")
_wait_option = option("--wait", is_flag=True, help="Return when none of its requests runs any more.")


@click.group(name="agents", invoke_without_command=True)
@_pool_option
@json_option
@watch_option
@redis_options
@click.pass_context
def command(
    ctx: click.Context, *, pool: str | None, as_json: bool, watch: bool, redis_url: str, redis_prefix: str
) -> None:
    """Show the agents; subcommands drain, undrain and remove them.

    An agent is named by its id, or by its name where that is the only one of its kind.
    """
    ctx.obj = Server(redis_url, redis_prefix)
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, pool, as_json=as_json, watch=watch)
    elif pool or as_json or watch:
        raise click.UsageError(f"Put --pool, --json and --watch behind {ctx.invoked_subcommand}.")


@command.command(name="list")
@_pool_option
@json_option
@watch_option
@server_options
@click.pass_context
def list_command(ctx: click.Context, *, pool: str | None, as_json: bool, watch: bool, **server: Any) -> None:
    """List the agents."""
    _list(server_of(ctx, **_where(server)), pool, as_json=as_json, watch=watch)


@command.command(name="show")
@click.argument("agent")  # pyright: ignore[reportUnknownMemberType]  # as settings.option
@json_option
@server_options
@click.pass_context
def show_command(ctx: click.Context, *, agent: str, as_json: bool, **server: Any) -> None:
    """Show all that is known of one agent."""

    async def act(store: Store) -> None:
        pool, lane = await _find(store, agent)
        if as_json:
            print_json({"pool": pool, "agent": lane})
        else:
            print_blocks(tables.agent_block(pool, lane))

    run(server_of(ctx, **_where(server)), act)


@command.command(name="drain")
@ids_argument
@_wait_option
@server_options
@click.pass_context
def drain_command(ctx: click.Context, *, ids: tuple[str, ...], wait: bool, **server: Any) -> None:
    """Let agents take no more requests. What runs there ends; they stay, with their models, until undrained."""
    _tell(ctx, server, ids, Order.DRAIN, wait=wait)


@command.command(name="undrain")
@ids_argument
@server_options
@click.pass_context
def undrain_command(ctx: click.Context, *, ids: tuple[str, ...], **server: Any) -> None:
    """Let drained agents take requests again."""
    _tell(ctx, server, ids, Order.UNDRAIN)


@command.command(name="remove")
@ids_argument
@option("--force", is_flag=True, help="Hand over now and forget them, whether they answer or not.")
@_wait_option
@server_options
@click.pass_context
def remove_command(ctx: click.Context, *, ids: tuple[str, ...], force: bool, wait: bool, **server: Any) -> None:
    """Let agents hand over what they have and end."""
    _tell(ctx, server, ids, Order.REMOVE, is_forced=force, wait=wait)


def _where(server: dict[str, Any]) -> dict[str, str | None]:
    return {"url": server["redis_url"], "prefix": server["redis_prefix"]}


def _list(server: Server, pool: str | None, *, as_json: bool, watch: bool) -> None:
    if watch and as_json:
        raise click.UsageError("--watch draws a table; leave --json out.")

    async def draw(store: Store) -> list[RenderableType]:
        return tables.agents_blocks(await _pools(store, pool))

    if as_json:
        pools = run(server, lambda store: _pools(store, pool))
        print_json([{"pool": one.pool, "agent": lane} for one in pools for lane in one.lanes])
    else:
        show(server, draw, watch=watch)


def _tell(
    ctx: click.Context,
    server: dict[str, Any],
    ids: tuple[str, ...],
    order: Order,
    *,
    is_forced: bool = False,
    wait: bool = False,
) -> None:
    """The exit code is 1 when an agent did not do as it was told."""

    async def act(store: Store) -> bool:
        found = [await _find(store, one) for one in ids]
        is_well = True
        for pool, lane in found:
            said, is_done = await _tell_one(store, pool, lane.agent, order, is_forced=is_forced)
            click.echo(f"{lane.agent}{f' ({lane.name})' if lane.name else ''}: {said}")
            is_well = is_well and is_done
        for pool, lane in found if wait else ():
            await _wait_until_empty(store, pool, lane.agent)
        return is_well

    if not run(server_of(ctx, **_where(server)), act):
        ctx.exit(1)


async def _tell_one(store: Store, pool: str, agent_id: str, order: Order, *, is_forced: bool) -> tuple[str, bool]:
    ordered = await AgentOrders(store).tell(pool, agent_id, order, is_forced=is_forced)
    if ordered is None:
        return "has gone", order is Order.REMOVE
    if not ordered.is_obeyed:
        return "is leaving; it neither drains nor stays", False
    if order is Order.UNDRAIN:
        return "takes requests again", True
    if is_forced:
        return "removed; what it had is handed over", True
    still = f"{ordered.num_running} of its requests still run" if ordered.num_running else "none of its requests runs"
    return f"{'takes no more' if order is Order.DRAIN else 'ends'}; {still}", True


async def _wait_until_empty(store: Store, pool: str, agent_id: str) -> None:
    redis: Any = store.redis
    keys, clock = store.pool(pool).keys, SystemClock()
    while await redis.xlen(keys.lane(agent_id)):
        await clock.sleep(POLL_S)


async def _pools(store: Store, only: str | None) -> list[PoolQueue]:
    overview = Overview(store)
    names = await overview.pool_names()
    if only is not None and only not in names:
        raise click.ClickException(f"There is no pool {only!r}; there is: {', '.join(names)}.")
    return [await overview.pool(name) for name in names if only in (None, name)]


async def _find(store: Store, agent: str) -> tuple[str, Lane]:
    """By id, else by name. Raises `ClickException` where there is none, or more than one."""
    lanes = [(pool.pool, lane) for pool in await _pools(store, None) for lane in pool.lanes]
    found = [one for one in lanes if one[1].agent == agent] or [one for one in lanes if one[1].name == agent]
    if len(found) == 1:
        return found[0]
    if found:
        raise click.ClickException(f"{agent!r} are {', '.join(lane.agent for _, lane in found)}: give an id.")
    known = ", ".join(lane.agent for _, lane in lanes[:20]) or "none"
    raise click.ClickException(f"No agent has the id or name {agent!r}; there is: {known}.")
