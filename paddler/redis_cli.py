"""What commands have in common that look into Redis and go: `paddler queue`, `paddler model`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
import rich_click as click
from msgspec import Struct
from rich.console import Console, RenderableType

from paddler.settings import REDIS_PREFIX, REDIS_URL, option
from paddler.store.client import TROUBLE, Store, connect
from paddler.up.plan import without_password

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


class Server(Struct, frozen=True):
    """Which Redis, and what its keys begin with."""

    url: str
    prefix: str


def server_options(function: _F) -> _F:
    """Subcommands take the server, too; without it they use their group's, which is `ctx.obj`."""
    for flag, kind in (("--redis-prefix", REDIS_PREFIX), ("--redis-url", REDIS_URL)):
        function = option(flag, type=kind, help="As before the subcommand.")(function)
    return function


def server_of(ctx: click.Context, url: str | None, prefix: str | None) -> Server:
    before: Server = ctx.obj
    return Server(url or before.url, prefix or before.prefix)


def run_with_store(server: Server, act: Callable[[Store], Awaitable[_T]]) -> _T:
    """Raises `click.ClickException` where Redis cannot be used."""

    async def run() -> _T:
        store = connect(server.url, server.prefix)
        try:
            return await act(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except TROUBLE as error:
        raise click.ClickException(
            f"Redis at {without_password(server.url)} cannot be used: {error or type(error).__name__} "
            "Give another one with --redis-url."
        ) from None


def print_blocks(blocks: Iterable[RenderableType]) -> None:
    console = Console(highlight=False)
    for block in blocks:
        console.print(block)


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
