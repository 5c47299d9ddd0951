"""`paddler queue`: prints the queue; its subcommands list, cancel, requeue and drop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import rich_click as click
from rich.console import RenderableType

from paddler.clock import SystemClock
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.overview import Overview, pools_of
from paddler.queue_cli import tables
from paddler.redis_cli import Server, print_blocks, print_json, run_with_store, server_of, server_options
from paddler.settings import POOL, option, redis_options
from paddler.store.client import Store
from paddler.store.results import Cancelled, Requeued

_F = TypeVar("_F", bound=Callable[..., Any])

CANCELLED = {
    Cancelled.CANCELLED: "cancelled",
    Cancelled.CANCELLING: "its agent is told to stop",
    Cancelled.ENDED: "had ended already",
    Cancelled.GONE: "is not known; what has ended is forgotten after ten minutes",
}
REQUEUED = {
    Requeued.REQUEUED: "waits again, in the background: its answer can be read from GET /v1/requests/{id}/stream",
    Requeued.GONE: "died more than a day ago, Redis does not have it any more; `paddler queue drop` removes the letter",
    Requeued.NOT_DEAD: "is no dead letter",
}


@click.group(name="queue", invoke_without_command=True)
@option("--pool", type=POOL, help="Only this pool; by default all.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@redis_options
@click.pass_context
def command(ctx: click.Context, *, pool: str | None, as_json: bool, redis_url: str, redis_prefix: str) -> None:
    """Show the queue: what waits, who works, what died. Subcommands look closer and change it."""
    ctx.obj = Server(redis_url, redis_prefix)
    if ctx.invoked_subcommand is None:
        run_with_store(ctx.obj, lambda store: _show(store, pool, as_json=as_json))
    elif pool or as_json:
        raise click.UsageError(f"Put --pool and --json behind {ctx.invoked_subcommand}.")


_ids = click.argument("ids", nargs=-1, required=True)  # pyright: ignore[reportUnknownMemberType]  # as settings.option


@command.command(name="waiting")
@option("--pool", type=POOL, default="default", help="The pool.")
@option("--limit", type=click.IntRange(1, 10_000), default=20, help="How many, from the front.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@server_options
@click.pass_context
def waiting_command(
    ctx: click.Context, *, pool: str, limit: int, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """List waiting requests with their position."""

    async def act(store: Store) -> None:
        found = await Overview(store).waiting(pool, limit)
        if as_json:
            print_json(found)
        else:
            print_blocks([tables.waiting_table(found) if found else f"Nothing waits in pool {pool}."])

    run_with_store(server_of(ctx, redis_url, redis_prefix), act)


@command.command(name="dead")
@option("--pool", type=POOL, default="default", help="The pool.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@server_options
@click.pass_context
def dead_command(
    ctx: click.Context, *, pool: str, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """List dead letters: requests that lost one agent after the other, and may be what killed them."""

    async def act(store: Store) -> None:
        found = await Overview(store).dead_letters(pool)
        if as_json:
            print_json(found)
        else:
            now_ms = SystemClock().wall() * 1000
            print_blocks([tables.dead_table(found, now_ms) if found else f"No dead letters in pool {pool}."])

    run_with_store(server_of(ctx, redis_url, redis_prefix), act)


@command.command(name="cancel")
@_ids
@server_options
@click.pass_context
def cancel_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Cancel requests by id, waiting or running."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        outcome = await store.pool(pool).cancel(request_id, CANCELLED_FRAME)
        return CANCELLED[outcome], outcome is not Cancelled.GONE

    _each(ctx, redis_url, redis_prefix, ids, one)


@command.command(name="requeue")
@_ids
@server_options
@click.pass_context
def requeue_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Give dead letters another chance, from the beginning and under the same id. Fix what killed them first."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        outcome = await store.pool(pool).requeue(request_id)
        return REQUEUED[outcome].replace("{id}", request_id), outcome is Requeued.REQUEUED

    _each(ctx, redis_url, redis_prefix, ids, one)


@command.command(name="drop")
@_ids
@server_options
@click.pass_context
def drop_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Forget dead letters."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        is_dropped = await store.pool(pool).drop(request_id)
        return "dropped" if is_dropped else "is no dead letter", is_dropped

    _each(ctx, redis_url, redis_prefix, ids, one)


async def _show(store: Store, only: str | None, *, as_json: bool) -> None:
    overview = Overview(store)
    names = await overview.pool_names()
    if only is not None and only not in names:
        raise click.ClickException(f"There is no pool {only!r}; there is: {', '.join(names)}.")
    pools = [await overview.pool(name) for name in names if only in (None, name)]
    has_worker = await overview.is_worker_running()
    if as_json:
        print_json({"worker": has_worker, "pools": pools})
        return
    blocks: list[RenderableType] = [] if has_worker else [f"[yellow]{tables.NO_WORKER}[/]"]
    for queue in pools:
        blocks += ["", *tables.pool_block(queue)] if blocks else tables.pool_block(queue)
    print_blocks(blocks)


def _each(
    ctx: click.Context,
    redis_url: str | None,
    redis_prefix: str | None,
    ids: Iterable[str],
    one: Callable[[Store, str, str], Awaitable[tuple[str, bool]]],
) -> None:
    """Do `one` to each id and say what became of it; the exit code is 1 when any was in vain."""
    try:
        pools = pools_of(list(ids))
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None

    async def act(store: Store) -> bool:
        is_well = True
        for request_id, pool in pools.items():
            said, is_done = await one(store, pool, request_id)
            click.echo(f"{request_id}: {said}")
            is_well = is_well and is_done
        return is_well

    if not run_with_store(server_of(ctx, redis_url, redis_prefix), act):
        ctx.exit(1)
