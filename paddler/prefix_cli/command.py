"""`paddler prefixes`: pins what many requests begin with, over a balancer's management service, which checks it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
import rich_click as click

from paddler.clock import SystemClock
from paddler.dashboard.address import Access, access_options, read_access
from paddler.dashboard.client import Management, talk
from paddler.prefix_cli.shown import PrefixInfo, PrefixInfos, prefix_block, prefixes_table
from paddler.redis_cli import json_option, print_blocks
from paddler.settings import DEFAULT_POOL, POOL, option
from paddler.tenants.records import NAME_RULE

_F = TypeVar("_F", bound=Callable[..., Any])
_Raw = msgspec.Raw

_name = click.argument("name")  # pyright: ignore[reportUnknownMemberType]  # as settings.option
_FILE = click.Path(dir_okay=False, allow_dash=True)


@click.group(name="prefixes")
def command() -> None:
    """Pin what many requests begin with, such as a system prompt: agents compute it once, before anybody asks, and keep
    it."""


def _shared(function: _F) -> _F:
    """Adds `pool`, `as_json` and `access`."""

    @wraps(function)
    def called(*args: Any, **given: Any) -> Any:
        access = read_access(
            given.pop("management_addr"),
            given.pop("api_key_file"),
            given.pop("tls_ca"),
            given.pop("tls_client_cert"),
            given.pop("tls_client_key"),
            SystemClock().wall(),
        )
        return function(*args, access=access, **given)

    made: Callable[..., Any] = called
    for more in (json_option, option("--pool", type=POOL, default=DEFAULT_POOL, help="The pool.")):
        made = more(made)
    return cast("_F", access_options(made))


@command.command(name="list")
@_shared
def list_command(*, pool: str, as_json: bool, access: Access) -> None:
    """List what is pinned: size, hits, and which agents have it at hand."""
    answer = talk(access, lambda management: management.get(_path(pool), bytes))
    if as_json:
        _print(answer)
        return
    found = msgspec.json.decode(answer, type=PrefixInfos).prefixes
    if found:
        print_blocks([prefixes_table(found)])
    else:
        click.echo(f"Nothing is pinned in pool {pool}: paddler prefixes add NAME --system TEXT")


@command.command(name="add")
@_name
@option("--system", help="The text of a system message that conversations begin with.")
@option(
    "--messages",
    type=_FILE,
    help="A JSON file with the messages that conversations begin with, or an object with messages and tools; - is "
    "standard input.",
)
@option("--prompt", type=_FILE, help="A file with the text that raw prompts begin with; - is standard input.")
@option("--tenant", help="For requests of this tenant alone; by default for everybody's.")
@_shared
def add_command(
    *,
    name: str,
    system: str | None,
    messages: str | None,
    prompt: str | None,
    tenant: str | None,
    pool: str,
    as_json: bool,
    access: Access,
) -> None:
    """Pin a prefix, in place of the one that has this NAME."""
    body: dict[str, Any] = {"name": name, **_content(system, messages, prompt)}
    if tenant is not None:
        body["tenant"] = tenant

    async def act(management: Management) -> bytes:
        return await management.post(_path(pool), bytes, msgspec.json.encode(body))

    answer = talk(access, act)
    if as_json:
        _print(answer)
    else:
        made = msgspec.json.decode(answer, type=PrefixInfo)
        click.echo(f"{made.name}: version {made.version}, {made.size:,} bytes, is pinned in pool {pool}")


@command.command(name="show")
@_name
@_shared
def show_command(*, name: str, pool: str, as_json: bool, access: Access) -> None:
    """Show a pinned prefix and how each agent stands to it; with --json also what it is."""
    answer = talk(access, lambda management: management.get(_path(pool, name), bytes))
    if as_json:
        _print(answer)
    else:
        print_blocks(prefix_block(msgspec.json.decode(answer, type=PrefixInfo)))


@command.command(name="remove")
@_name
@_shared
def remove_command(*, name: str, pool: str, as_json: bool, access: Access) -> None:
    """Unpin a prefix: agents give up what they hold of it."""
    answer = talk(access, lambda management: management.delete(_path(pool, name), bytes))
    if as_json:
        _print(answer)
    else:
        click.echo(f"{name}: is not pinned any more")


def _content(system: str | None, messages: str | None, prompt: str | None) -> dict[str, Any]:
    """Fields of the body. Raises `UsageError` unless exactly one is given."""
    if sum(one is not None for one in (system, messages, prompt)) != 1:
        raise click.UsageError("Give one of --system, --messages and --prompt.")
    if system is not None:
        return {"messages": [{"role": "system", "content": system}]}
    if prompt is not None:
        try:
            return {"prompt": _read(prompt).decode()}
        except UnicodeDecodeError as error:
            raise click.UsageError(f"--prompt {prompt} is not UTF-8: {error.reason}.") from None
    assert messages is not None
    data = _read(messages)
    try:
        if data.lstrip()[:1] == b"[":
            return {"messages": msgspec.json.decode(data, type=_Raw)}
        told = msgspec.json.decode(data, type=dict[str, _Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--messages {messages} has neither a list nor an object in JSON: {error}.") from None
    if unknown := sorted(told.keys() - {"messages", "tools"}):
        raise click.UsageError(f"--messages {messages} has {unknown[0]!r} beside `messages` and `tools`: leave it out.")
    return dict(told)


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from None


def _path(pool: str, name: str | None = None) -> str:
    path = f"/api/v1/pools/{pool}/prefixes"
    if name is None:
        return path
    return f"{path}/{_quoted(name)}"


def _quoted(name: str) -> str:
    """As a part of a path. Raises `UsageError` for what names no prefix."""
    if not name or not name.isascii() or "/" in name:
        raise click.UsageError(f"NAME must be {NAME_RULE}.")
    return quote(name, safe="")


def _print(answer: bytes) -> None:
    click.echo(msgspec.json.format(answer, indent=2))
