"""What commands share that look into Redis: which server, one connection for one command, what they print.

A group takes the server before its subcommand (`redis_options`) and each subcommand behind it (`server_options`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

import msgspec
import rich_click as click
from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live

from paddler.clock import SystemClock
from paddler.entrance import EXIT_CONFIG, Incompatible, look
from paddler.errors import PaddlerError
from paddler.jobs.overview import pools_of
from paddler.settings import (
    REDIS_PREFIX,
    REDIS_URL,
    access_before,
    current_context,
    later_access_options,
    option,
    taken_access,
    url_with_access,
)
from paddler.store.client import TROUBLE, Store, connect
from paddler.store.remedies import remedy_for
from paddler.up.plan import without_password

WATCH_S = 1.0

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

Draw = Callable[[Store], Awaitable[list[RenderableType]]]
Act = Callable[[Store, str, str], Awaitable[tuple[str, bool]]]
"""Given a pool and a request id: what to say of it, and whether it went well."""


class Refused(click.ClickException):
    """This version of Paddler may not touch what is there."""

    exit_code = EXIT_CONFIG


class Server(Struct, frozen=True):
    """Which Redis, and what its keys begin with."""

    url: str
    prefix: str


ids_argument = click.argument("ids", nargs=-1, required=True)  # pyright: ignore[reportUnknownMemberType]  # as settings.option
json_option = option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
watch_option = option("--watch", is_flag=True, help="Draw it anew every second, until Ctrl-C.")


def server_options(function: _F) -> _F:
    """Subcommands take the server, too; without it they use the group's, whose flags alone read the variables: read
    here again, they would win over its flags. How to get in that was said before holds for a URL that is said here."""

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        access = {name: value for name, value in taken_access(given).items() if value is not None}
        url: str | None = given["redis_url"]
        if url is not None:
            given["redis_url"] = url_with_access(url, access_before() | access)
        elif access:
            before: Server = current_context().obj
            given["redis_url"] = url_with_access(before.url, access)
        return function(*args, **given)

    found = cast("_F", later_access_options(command))
    for flag, kind in (("--redis-prefix", REDIS_PREFIX), ("--redis-url", REDIS_URL)):
        found = option(flag, type=kind, envvar=None, help="As before the subcommand.")(found)
    return found


def server_of(ctx: click.Context, url: str | None, prefix: str | None) -> Server:
    before: Server = ctx.obj
    return Server(url or before.url, prefix or before.prefix)


def run(server: Server, act: Callable[[Store], Awaitable[_T]]) -> _T:
    """Raises `ClickException` for what was refused, and naming the server where Redis cannot be used."""

    async def connected() -> _T:
        store = connect(server.url, server.prefix)
        try:
            await look(store)
            return await act(store)
        finally:
            await store.close()

    try:
        return asyncio.run(connected())
    except Incompatible as error:
        raise Refused(str(error)) from None
    except PaddlerError as error:
        raise click.ClickException(error.message) from None
    except TROUBLE as error:
        told = str(error).rstrip(".") or type(error).__name__
        raise click.ClickException(
            f"Redis at {without_password(server.url)} cannot be used: {told}: {remedy_for(error)}."
        ) from None


def show(server: Server, draw: Draw, *, watch: bool = False) -> None:
    """Print what `draw` makes, once or until Ctrl-C."""

    async def act(store: Store) -> None:
        console = Console(highlight=False)
        if not watch:
            print_blocks(await draw(store))
            return
        clock = SystemClock()
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Group(*await draw(store)), refresh=True)
                await clock.sleep(WATCH_S)

    with contextlib.suppress(KeyboardInterrupt):
        run(server, act)


def each_request(ctx: click.Context, server: Server, ids: Iterable[str], one: Act) -> None:
    """Do `one` to each request, given its pool, and say what became of it; the exit code is 1 when any was in vain."""
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

    if not run(server, act):
        ctx.exit(1)


def print_blocks(blocks: Iterable[RenderableType]) -> None:
    console = Console(highlight=False)
    for block in blocks:
        console.print(block)


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
