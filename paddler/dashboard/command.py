"""`paddler dashboard`: the fleet on a terminal, or once, or as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import rich_click as click

from paddler.clock import SystemClock
from paddler.dashboard.address import Access, access_options, read_access
from paddler.dashboard.client import Management, talk
from paddler.dashboard.report import encode, print_table, read_once, snapshot, watch
from paddler.settings import DEFAULT_POOL, POOL, option


@click.command(name="dashboard")
@access_options
@option("--pool", type=POOL, default=DEFAULT_POOL, help="The pool to begin with.")
@option("--once", is_flag=True, help="Print a table and end; with exit code 1 where the balancer cannot be asked.")
@option("--json", "as_json", is_flag=True, help="Print JSON, a line whenever something changes; with --once, once.")
def command(
    *,
    management_addr: str,
    api_key_file: Path | None,
    tls_ca: Path | None,
    tls_client_cert: Path | None,
    tls_client_key: Path | None,
    pool: str,
    once: bool,
    as_json: bool,
) -> None:
    """Watch a fleet on the terminal: agents, requests, buffer and speed, as they change.

    Drains agents and cancels requests when you say so. `?` shows the keys.
    """
    clock = SystemClock()
    access = read_access(management_addr, api_key_file, tls_ca, tls_client_cert, tls_client_key, clock.wall())
    if once:
        _once(access, pool, clock, as_json=as_json)
    elif as_json:
        _run(access, lambda management: watch(management, access.shown, pool, clock, _say))
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("This is no terminal; --once prints a table, --json a line for each change.")
    else:
        from paddler.dashboard.app import run_dashboard  # Textual: a quarter of a second that nobody else waits for

        _run(access, lambda management: run_dashboard(management, access.shown, pool, clock))


def _once(access: Access, pool: str, clock: SystemClock, *, as_json: bool) -> None:
    async def act(management: Management) -> None:
        picture = await read_once(management, pool, clock)
        if as_json:
            click.echo(msgspec.json.format(encode(snapshot(picture, access.shown)), indent=2))
        else:
            print_table(picture, clock.monotonic())

    _run(access, act)


def _say(line: bytes) -> None:
    click.echo(line)


def _run(access: Access, act: Callable[[Management], Awaitable[None]]) -> None:
    with suppress(KeyboardInterrupt):
        talk(access, act)
