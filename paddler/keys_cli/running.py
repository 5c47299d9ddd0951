"""What commands over Redis have in common: a store for one piece of work, and what is printed of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec
import rich_click as click
from rich.console import Console, RenderableType

from paddler.errors import PaddlerError
from paddler.store.client import TROUBLE, Store, connect
from paddler.up.plan import without_password

_T = TypeVar("_T")


def run_on_store(url: str, prefix: str, act: Callable[[Store], Awaitable[_T]]) -> _T:
    """Raises `ClickException` for what was refused, or when Redis cannot be used."""

    async def run() -> _T:
        store = connect(url, prefix)
        try:
            return await act(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except PaddlerError as error:
        raise click.ClickException(error.message) from None
    except TROUBLE as error:
        raise click.ClickException(
            f"Redis at {without_password(url)} cannot be used: {error or type(error).__name__} "
            "Give another one with --redis-url."
        ) from None


def print_blocks(blocks: Iterable[RenderableType]) -> None:
    console = Console(highlight=False)
    for block in blocks:
        console.print(block)


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
