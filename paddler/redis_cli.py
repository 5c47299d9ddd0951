"""What commands have in common that look into Redis and go: `paddler queue`, `paddler model`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import rich_click as click
from msgspec import Struct
from rich.console import Console, RenderableType

from paddler.store.client import TROUBLE, Store, connect
from paddler.up.plan import without_password

_T = TypeVar("_T")


class Server(Struct, frozen=True):
    """Which Redis, and what its keys begin with."""

    url: str
    prefix: str


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
