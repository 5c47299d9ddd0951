"""`paddler queue`: prints the queue; its subcommands list, cancel, requeue and drop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
import rich_click as click
from msgspec import Struct
from rich.console import Console, RenderableType

from paddler.clock import SystemClock
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.overview import Overview, pools_of
from paddler.queue_cli import tables
from paddler.settings import POOL, REDIS_PREFIX, REDIS_URL, option, redis_options
from paddler.store.client import TROUBLE, Store, connect
from paddler.store.remedies import remedy_for
from paddler.store.results import Cancelled, Requeued
from paddler.up.plan import without_password

_T = TypeVar("_T")
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


class Server(Struct, frozen=True):
    """Which Redis, and what its keys begin with."""

    url: str
    prefix: str


@click.group(name="queue", invoke_without_command=True)
@option("--pool", type=POOL, help="Only this pool; by default all.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@redis_options
@click.pass_context
def command(ctx: click.Context, *, pool: str | None, as_json: bool, redis_url: str, redis_prefix: str) -> None:
    """Show the queue: what waits, who works, what died. Subcommands look closer and change it."""
    ctx.obj = Server(redis_url, redis_prefix)
    if ctx.invoked_subcommand is None:
        _run(ctx.obj, lambda store: _show(store, pool, as_json=as_json))
    elif pool or as_json:
        raise click.UsageError(f"Put --pool and --json behind {ctx.invoked_subcommand}.")


_ids = click.argument("ids", nargs=-1, required=True)  # pyright: ignore[reportUnknownMemberType]  # as settings.option


def _server_options(function: _F) -> _F:
    """Subcommands take the server, too; without it they use the group's."""
    for flag, kind in (("--redis-prefix", REDIS_PREFIX), ("--redis-url", REDIS_URL)):
        function = option(flag, type=kind, help="As before the subcommand.")(function)
    return function


def _server(ctx: click.Context, url: str | None, prefix: str | None) -> Server:
    before: Server = ctx.obj
    return Server(url or before.url, prefix or before.prefix)


@command.command(name="waiting")
@option("--pool", type=POOL, default="default", help="The pool.")
@option("--limit", type=click.IntRange(1, 10_000), default=20, help="How many, from the front.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@_server_options
@click.pass_context
def waiting_command(
    ctx: click.Context, *, pool: str, limit: int, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """List waiting requests with their position."""

    async def act(store: Store) -> None:
        found = await Overview(store).waiting(pool, limit)
        if as_json:
            _print_json(found)
        else:
            _print([tables.waiting_table(found) if found else f"Nothing waits in pool {pool}."])

    _run(_server(ctx, redis_url, redis_prefix), act)


@command.command(name="dead")
@option("--pool", type=POOL, default="default", help="The pool.")
@option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@_server_options
@click.pass_context
def dead_command(
    ctx: click.Context, *, pool: str, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """List dead letters: requests that lost one agent after the other, and may be what killed them."""

    async def act(store: Store) -> None:
        found = await Overview(store).dead_letters(pool)
        if as_json:
            _print_json(found)
        else:
            now_ms = SystemClock().wall() * 1000
            _print([tables.dead_table(found, now_ms) if found else f"No dead letters in pool {pool}."])

    _run(_server(ctx, redis_url, redis_prefix), act)


@command.command(name="cancel")
@_ids
@_server_options
@click.pass_context
def cancel_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Cancel requests by id, waiting or running."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        outcome = await store.pool(pool).cancel(request_id, CANCELLED_FRAME)
        return CANCELLED[outcome], outcome is not Cancelled.GONE

    _each(ctx, redis_url, redis_prefix, ids, one)


@command.command(name="requeue")
@_ids
@_server_options
@click.pass_context
def requeue_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Give dead letters another chance, from the beginning and under the same id. Fix what killed them first."""

    async def one(store: Store, pool: str, request_id: str) -> tuple[str, bool]:
        outcome = await store.pool(pool).requeue(request_id)
        return REQUEUED[outcome].replace("{id}", request_id), outcome is Requeued.REQUEUED

    _each(ctx, redis_url, redis_prefix, ids, one)


@command.command(name="drop")
@_ids
@_server_options
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
        _print_json({"worker": has_worker, "pools": pools})
        return
    blocks: list[RenderableType] = [] if has_worker else [f"[yellow]{tables.NO_WORKER}[/]"]
    for queue in pools:
        blocks += ["", *tables.pool_block(queue)] if blocks else tables.pool_block(queue)
    _print(blocks)


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

    if not _run(_server(ctx, redis_url, redis_prefix), act):
        ctx.exit(1)


def _run(server: Server, act: Callable[[Store], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        store = connect(server.url, server.prefix)
        try:
            return await act(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except TROUBLE as error:
        told = str(error).rstrip(".") or type(error).__name__
        raise click.ClickException(
            f"Redis at {without_password(server.url)} cannot be used: {told}: {remedy_for(error)}."
        ) from None


def _print(blocks: Iterable[RenderableType]) -> None:
    console = Console(highlight=False)
    for block in blocks:
        console.print(block)


def _print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
