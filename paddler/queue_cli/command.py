"""`paddler queue`: prints the queue; its subcommands list, cancel, requeue and drop."""

from __future__ import annotations

import rich_click as click
from rich.console import RenderableType

from paddler.clock import SystemClock
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.overview import Overview
from paddler.queue_cli import tables
from paddler.redis_cli import (
    Server,
    each_request,
    ids_argument,
    print_blocks,
    print_json,
    run,
    server_of,
    server_options,
)
from paddler.settings import POOL, option, redis_options
from paddler.store.client import Store
from paddler.store.results import Cancelled, Requeued

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


async def cancel_request(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
    """What to say of it, and whether there was such a request."""
    outcome = await store.pool(pool).cancel(request_id, CANCELLED_FRAME)
    return CANCELLED[outcome], outcome is not Cancelled.GONE


@click.group(name="queue", invoke_without_command=True)
@option("--pool", type=POOL, help="Only this pool; by default all.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@redis_options
@click.pass_context
def command(ctx: click.Context, *, pool: str | None, as_json: bool, redis_url: str, redis_prefix: str) -> None:
    """Show the queue: what waits, who works, what died. Subcommands look closer and change it."""
    ctx.obj = Server(redis_url, redis_prefix)
    if ctx.invoked_subcommand is None:
        run(ctx.obj, lambda store: _show(store, pool, as_json=as_json))
    elif pool or as_json:
        raise click.UsageError(f"Put --pool and --json behind {ctx.invoked_subcommand}.")


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

    run(server_of(ctx, redis_url, redis_prefix), act)


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

    run(server_of(ctx, redis_url, redis_prefix), act)


@command.command(name="cancel")
@ids_argument
@server_options
@click.pass_context
def cancel_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Cancel requests by id, waiting or running."""

    each_request(ctx, server_of(ctx, redis_url, redis_prefix), ids, cancel_request)


@command.command(name="requeue")
@ids_argument
@server_options
@click.pass_context
def requeue_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Give dead letters another chance, from the beginning and under the same id. Fix what killed them first."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        outcome = await store.pool(pool).requeue(request_id)
        return REQUEUED[outcome].replace("{id}", request_id), outcome is Requeued.REQUEUED

    each_request(ctx, server_of(ctx, redis_url, redis_prefix), ids, one)


@command.command(name="drop")
@ids_argument
@server_options
@click.pass_context
def drop_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Forget dead letters."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        is_dropped = await store.pool(pool).drop(request_id)
        return "dropped" if is_dropped else "is no dead letter", is_dropped

    each_request(ctx, server_of(ctx, redis_url, redis_prefix), ids, one)


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
