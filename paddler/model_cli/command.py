"""`paddler model`: shows and changes the desired state of a pool, in Redis."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.desired import changing
from paddler.desired.checks import check_state
from paddler.desired.document import document_of, patched, read_state
from paddler.desired.schema import BalancerDesiredState, DesiredAdapter, DesiredModel, Versioned
from paddler.desired.store import DesiredStates
from paddler.desired.uris import parse_model_uri, uri_of
from paddler.engine_flags import parse_adapter
from paddler.errors import PaddlerError
from paddler.model_cli import tables
from paddler.redis_cli import Server, print_blocks, print_json, run, server_of, server_options
from paddler.settings import POOL, option, redis_options
from paddler.store.client import Store

_T = TypeVar("_T")


@click.group(name="model")
@redis_options
@click.pass_context
def command(ctx: click.Context, *, redis_url: str, redis_prefix: str) -> None:
    """Show and change what a pool is to serve and how: its desired state. Agents without --model follow it."""
    ctx.obj = Server(redis_url, redis_prefix)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `ctx`, `pool`, `as_json`, `redis_url` and `redis_prefix`."""
    function = server_options(click.pass_context(function))
    function = option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)
    return option("--pool", type=POOL, default="default", help="The pool.")(function)


_if_version = option(
    "--if-version", type=click.IntRange(min=0), help="Only if this is the version that is there; 0: none has been set."
)


@command.command(name="show")
@option("--version", "version", type=click.IntRange(min=1), help="An earlier version.")
@_options
def show_command(
    ctx: click.Context,
    *,
    pool: str,
    version: int | None,
    as_json: bool,
    redis_url: str | None,
    redis_prefix: str | None,
) -> None:
    """Show the desired state. With --json the whole document, as `set` takes it."""

    async def act(states: DesiredStates) -> Versioned:
        return await states.read(pool) if version is None else await states.at(pool, version)

    found = _run(server_of(ctx, redis_url, redis_prefix), act)
    if as_json:
        print_json(document_of(found.state))
    else:
        print_blocks(tables.state_block(pool, found, _now_ms()))


@command.command(name="set")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))  # pyright: ignore[reportUnknownMemberType]
@_if_version
@_options
def set_command(
    ctx: click.Context,
    *,
    file: str,
    pool: str,
    if_version: int | None,
    as_json: bool,
    redis_url: str | None,
    redis_prefix: str | None,
) -> None:
    """Replace the whole desired state by that of a JSON file; - is standard input."""
    body = _read(file)

    async def act(states: DesiredStates) -> Versioned:
        return await changing.put(states, pool, read_state(body), expected=if_version, author=_author())

    _tell(pool, _run(server_of(ctx, redis_url, redis_prefix), act), as_json=as_json)


@command.command(name="patch")
@click.argument("patch")  # pyright: ignore[reportUnknownMemberType]
@_if_version
@_options
def patch_command(
    ctx: click.Context,
    *,
    patch: str,
    pool: str,
    if_version: int | None,
    as_json: bool,
    redis_url: str | None,
    redis_prefix: str | None,
) -> None:
    """Change what a JSON merge patch names; null is the default again. @FILE and - are read.

    For example: paddler model patch '{"inference_parameters": {"temperature": 0.2}}'
    """
    body = _read(patch.removeprefix("@")) if patch.startswith("@") or patch == "-" else patch.encode()

    def changed(state: BalancerDesiredState) -> BalancerDesiredState:
        return patched(state, body)

    _change(server_of(ctx, redis_url, redis_prefix), pool, changed, if_version, as_json=as_json)


@command.command(name="use")
@click.argument("uri")  # pyright: ignore[reportUnknownMemberType]
@option("--mmproj", help="The projection with which it reads images, as a URI; without it there is none.")
@option(
    "--lora",
    "adapters",
    multiple=True,
    help="A LoRA adapter for it, as a URI, with :SCALE behind it if that is not 1; repeatable; without it none is.",
)
@option("--sha256", help="The digest of the file of a URL, in hex: another file is not served.")
@_if_version
@_options
def use_command(
    ctx: click.Context,
    *,
    uri: str,
    mmproj: str | None,
    adapters: tuple[str, ...],
    sha256: str | None,
    pool: str,
    if_version: int | None,
    as_json: bool,
    redis_url: str | None,
    redis_prefix: str | None,
) -> None:
    """Serve another model: the address of a file on Hugging Face, agent:///path on the agents, any URL, or none."""
    try:
        model: DesiredModel = "None" if uri.lower() == "none" else parse_model_uri(uri, sha256)
        projection: DesiredModel = "None" if mmproj is None else parse_model_uri(mmproj)
        lora = tuple(_adapter(text) for text in adapters)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None

    def changed(state: BalancerDesiredState) -> BalancerDesiredState:
        parameters = replace(state.inference_parameters, lora_adapters=lora)
        changed = replace(state, model=model, multimodal_projection=projection, inference_parameters=parameters)
        check_state(changed)
        return changed

    _change(server_of(ctx, redis_url, redis_prefix), pool, changed, if_version, as_json=as_json)


def _adapter(text: str) -> DesiredAdapter:
    """Raises `ValueError`."""
    given = parse_adapter(text)
    source = parse_model_uri(given.path)
    return DesiredAdapter(
        HuggingFace=source.HuggingFace, LocalToAgent=source.LocalToAgent, Url=source.Url, scale=given.scale
    )


@command.command(name="history")
@_options
def history_command(
    ctx: click.Context, *, pool: str, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """List the versions of the desired state, the newest first."""
    found = _run(server_of(ctx, redis_url, redis_prefix), lambda states: states.history(pool))
    if as_json:
        print_json([_with_document(one) for one in found])
    elif found:
        print_blocks([tables.history_table(found, _now_ms())])
    else:
        click.echo(f"Nobody has set a desired state of pool {pool}.")


@command.command(name="rollback")
@click.argument("version", type=click.IntRange(min=1))  # pyright: ignore[reportUnknownMemberType]
@_if_version
@_options
def rollback_command(
    ctx: click.Context,
    *,
    version: int,
    pool: str,
    if_version: int | None,
    as_json: bool,
    redis_url: str | None,
    redis_prefix: str | None,
) -> None:
    """Set an earlier version again, as a new one."""

    async def act(states: DesiredStates) -> Versioned:
        return await changing.roll_back(states, pool, version, expected=if_version, author=_author())

    _tell(pool, _run(server_of(ctx, redis_url, redis_prefix), act), as_json=as_json)


def _change(
    server: Server,
    pool: str,
    changed: Callable[[BalancerDesiredState], BalancerDesiredState],
    if_version: int | None,
    *,
    as_json: bool,
) -> None:
    async def act(states: DesiredStates) -> Versioned:
        return await changing.change(states, pool, changed, expected=if_version, author=_author())

    _tell(pool, _run(server, act), as_json=as_json)


def _run(server: Server, act: Callable[[DesiredStates], Awaitable[_T]]) -> _T:
    async def connected(store: Store) -> _T:
        try:
            return await act(DesiredStates(store))
        except PaddlerError as error:
            raise click.ClickException(error.message.replace("read it,", "`paddler model show` it,")) from None

    return run(server, connected)


def _tell(pool: str, found: Versioned, *, as_json: bool) -> None:
    if as_json:
        print_json(_with_document(found))
    else:
        click.echo(f"Version {found.version} of pool {pool}: {uri_of(found.state.model)}")


def _with_document(found: Versioned) -> dict[str, Any]:
    """As the management service tells a version."""
    told = {"version": found.version, "updated_ms": found.updated_ms, "author": found.author}
    return told | {"balancer_desired_state": document_of(found.state)}


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from None


def _author() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "somebody"
    return f"paddler model, {user}@{socket.gethostname()}"


def _now_ms() -> float:
    return SystemClock().wall() * 1000
