"""`paddler keys`: makes, lists, limits, rotates, revokes and forgets API keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import rich_click as click

from paddler.clock import SystemClock
from paddler.keys_cli import tables
from paddler.keys_cli.options import Time, changed_limits, limit_options
from paddler.keys_cli.shown import shown_key
from paddler.redis_cli import Server, json_option, print_blocks, print_json, run, server_of, server_options
from paddler.settings import current_context, option, redis_options
from paddler.tenants.keys import ApiKeys, NewKey
from paddler.tenants.records import SCOPES, ApiKey, Limits, Scope

_T = TypeVar("_T")

_key_id = click.argument("key_id")  # pyright: ignore[reportUnknownMemberType]  # as settings.option
_key_ids = click.argument("key_ids", nargs=-1, required=True)  # pyright: ignore[reportUnknownMemberType]


@click.group(name="keys", invoke_without_command=True)
@json_option
@redis_options
@click.pass_context
def command(ctx: click.Context, *, as_json: bool, redis_url: str, redis_prefix: str) -> None:
    """List API keys; subcommands make, limit, rotate and revoke them. As soon as there is one, everybody needs one."""
    ctx.obj = Server(redis_url, redis_prefix)
    if ctx.invoked_subcommand is None:
        _list(None, None, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"Put --json behind {ctx.invoked_subcommand}.")


@command.command(name="create")
@click.argument("name")  # pyright: ignore[reportUnknownMemberType]
@option("--tenant", help="Who pays: keys of one tenant share files, responses and cached prompts. By default NAME.")
@option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("inference",),
    help="What it opens: requests, the operator's routes, or what agents are told. May be said again.",
)
@option("--expires", "expires_ms", type=Time(), help="A day or time (UTC) from which on it is refused.")
@limit_options
@json_option
@server_options
def create_command(
    *,
    name: str,
    tenant: str | None,
    scopes: tuple[Scope, ...],
    expires_ms: int | None,
    as_json: bool,
    redis_url: str | None,
    redis_prefix: str | None,
    **limits: Any,
) -> None:
    """Make a key and print it, this once."""
    if expires_ms is not None and expires_ms <= _now_ms():
        raise click.BadParameter("this time is over already.", param_hint="--expires")
    given = changed_limits(Limits(), limits)

    async def act(keys: ApiKeys) -> NewKey:
        return await keys.create(name, tenant=tenant, scopes=scopes, limits=given, expires_ms=expires_ms)

    _tell_new(_with_keys(redis_url, redis_prefix, act), as_json=as_json)


@command.command(name="list")
@json_option
@server_options
def list_command(*, as_json: bool, redis_url: str | None, redis_prefix: str | None) -> None:
    """List all keys, without their secrets, which nobody has."""
    _list(redis_url, redis_prefix, as_json=as_json)


def _list(redis_url: str | None, redis_prefix: str | None, *, as_json: bool) -> None:
    found = _with_keys(redis_url, redis_prefix, ApiKeys.list)
    if as_json:
        print_json([shown_key(key, _now_ms()) for key in found])
    else:
        print_blocks([tables.keys_table(found, _now_ms()) if found else tables.NO_KEYS])


@command.command(name="show")
@_key_id
@json_option
@server_options
def show_command(*, key_id: str, as_json: bool, redis_url: str | None, redis_prefix: str | None) -> None:
    """Show what a key may do."""
    _tell(_with_keys(redis_url, redis_prefix, lambda keys: keys.get(key_id)), as_json=as_json)


@command.command(name="limit")
@_key_id
@limit_options
@json_option
@server_options
def limit_command(
    *, key_id: str, as_json: bool, redis_url: str | None, redis_prefix: str | None, **limits: Any
) -> None:
    """Change the limits that are named; the others stay."""

    async def act(keys: ApiKeys) -> ApiKey:
        return await keys.limit(key_id, lambda present: changed_limits(present, limits))

    _tell(_with_keys(redis_url, redis_prefix, act), as_json=as_json)


@command.command(name="rotate")
@_key_id
@option(
    "--overlap",
    type=click.IntRange(min=0),
    default=0,
    help="Milliseconds for which the present secret is good beside the new one.",
)
@json_option
@server_options
def rotate_command(
    *, key_id: str, overlap: int, as_json: bool, redis_url: str | None, redis_prefix: str | None
) -> None:
    """Give a key a new secret and print it, this once."""
    new = _with_keys(redis_url, redis_prefix, lambda keys: keys.rotate(key_id, overlap_ms=overlap))
    _tell_new(new, as_json=as_json)


@command.command(name="revoke")
@_key_ids
@server_options
def revoke_command(*, key_ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Revoke keys: within a second no balancer takes them. What they have begun goes on."""

    async def act(keys: ApiKeys) -> None:
        for key_id in key_ids:
            key = await keys.revoke(key_id)
            click.echo(f"{key.id}: revoked")

    _with_keys(redis_url, redis_prefix, act)


@command.command(name="forget")
@_key_ids
@server_options
def forget_command(*, key_ids: tuple[str, ...], redis_url: str | None, redis_prefix: str | None) -> None:
    """Remove revoked or expired keys from the list. Without the last one, nobody needs a key again."""

    async def act(keys: ApiKeys) -> None:
        for key_id in key_ids:
            await keys.forget(key_id)
            click.echo(f"{key_id}: forgotten")

    _with_keys(redis_url, redis_prefix, act)


def _tell(key: ApiKey, *, as_json: bool) -> None:
    if as_json:
        print_json(shown_key(key, _now_ms()))
    else:
        print_blocks([tables.key_block(key, _now_ms())])


def _tell_new(new: NewKey, *, as_json: bool) -> None:
    """The key alone on the standard output, so that a script can take it."""
    if as_json:
        print_json(shown_key(new.key, _now_ms()) | {"secret": new.secret})
        return
    click.echo(new.secret)
    told = f"Keep it: it is shown this once. Key {new.key.id} of tenant {new.key.tenant}, {', '.join(new.key.scopes)}."
    click.echo(told, err=True)


def _with_keys(url: str | None, prefix: str | None, act: Callable[[ApiKeys], Awaitable[_T]]) -> _T:
    server = server_of(current_context(), url, prefix)
    return run(server, lambda store: act(ApiKeys(store, SystemClock())))


def _now_ms() -> float:
    return SystemClock().wall() * 1000
