"""`paddler requests`: what is in flight and waits, what happened to one, and stopping it."""

from __future__ import annotations

from typing import Any

import msgspec
import rich_click as click
from click.core import ParameterSource
from rich.console import RenderableType

from paddler.clock import SystemClock
from paddler.errors import RequestNotFound
from paddler.fleet_cli import tables
from paddler.jobs.fleet_view import FleetView
from paddler.jobs.request_list import STATES, Filter, Listed, RequestList
from paddler.jobs.timeline import Timeline, read_timeline
from paddler.queue_cli.command import cancel_request
from paddler.redis_cli import (
    Server,
    each_request,
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
from paddler.store.keys import CLASSES

MAX_LIMIT = 10_000


def _list_options(function: Any) -> Any:
    for one in (
        watch_option,
        json_option,
        option("--limit", type=click.IntRange(1, MAX_LIMIT), default=20, help="At most so many."),
        option("--agent", help="Given to the agent of this id."),
        option("--tenant", help="Of this tenant."),
        option("--class", "request_class", type=click.Choice(CLASSES), help="Of this class."),
        option("--state", type=click.Choice(STATES), help="In this state."),
        option("--pool", type=POOL, default="default", help="The pool."),
    ):
        function = one(function)
    return function


@click.group(name="requests", invoke_without_command=True)
@_list_options
@redis_options
@click.pass_context
def command(ctx: click.Context, *, redis_url: str, redis_prefix: str, **given: Any) -> None:
    """Show requests that have not ended: those that agents have, then those that wait, in order."""
    ctx.obj = Server(redis_url, redis_prefix)
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, **given)
    elif any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in given):
        raise click.UsageError(f"Put the options behind {ctx.invoked_subcommand}.")


@command.command(name="list")
@_list_options
@server_options
@click.pass_context
def list_command(ctx: click.Context, *, redis_url: str | None, redis_prefix: str | None, **given: Any) -> None:
    """List requests that have not ended."""
    _list(server_of(ctx, redis_url, redis_prefix), **given)


@command.command(name="show")
@click.argument("request_id", metavar="ID")  # pyright: ignore[reportUnknownMemberType]  # as settings.option
@json_option
@server_options
@click.pass_context
def show_command(
    ctx: click.Context, *, request_id: str, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """Show what has happened to a request so far; until ten minutes after its end."""

    async def act(store: Store) -> None:
        clock = SystemClock()
        try:
            found = await read_timeline(store, FleetView(store, clock), clock, request_id)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from None
        except RequestNotFound as error:
            raise click.ClickException(error.message) from None
        if as_json:
            print_json(_told(found))
        else:
            print_blocks(tables.request_block(found))

    run(server_of(ctx, redis_url, redis_prefix), act)


@command.command(name="cancel")
@ids_argument
@server_options
@click.pass_context
def cancel_command(ctx: click.Context, ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Stop requests, waiting or running."""

    each_request(ctx, server_of(ctx, redis_url, redis_prefix), ids, cancel_request)


def _list(
    server: Server,
    *,
    pool: str,
    state: str | None,
    request_class: str | None,
    tenant: str | None,
    agent: str | None,
    limit: int,
    as_json: bool,
    watch: bool,
) -> None:
    if watch and as_json:
        raise click.UsageError("--watch draws a table; leave --json out.")
    is_filtered = any(one is not None for one in (state, request_class, tenant, agent))
    nothing = f"No {'such request' if is_filtered else 'request'} waits or runs in pool {pool}."
    where = Filter(state=state, request_class=request_class, tenant=tenant, agent=agent)

    async def read(store: Store) -> list[Listed]:
        found: list[Listed] = []
        listing, cursor = RequestList(store), None
        while True:
            page = await listing.page(pool, where, limit=limit - len(found), cursor=cursor)
            found += page.requests
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return found

    async def draw(store: Store) -> list[RenderableType]:
        found = await read(store)
        return [tables.requests_table(found) if found else nothing]

    if as_json:
        print_json([_without_label(one) for one in run(server, read)])
    else:
        show(server, draw, watch=watch)


def _without_label(one: Listed) -> dict[str, Any]:
    """A label is for balancers."""
    return {name: value for name, value in msgspec.structs.asdict(one).items() if name != "label"}


def _told(one: Timeline) -> dict[str, Any]:
    """Without what the request has said."""
    status = msgspec.structs.asdict(one.status)
    for name in ("label", "tokens", "vectors", "answer", "route", "end", "error"):
        status.pop(name)
    rest = {name: value for name, value in msgspec.structs.asdict(one).items() if name != "status"}
    error = one.status.error
    return {
        **status,
        **rest,
        "tokens": one.status.route.num_tokens,
        "error": None if error is None else {"code": error.code, "message": error.message},
    }
