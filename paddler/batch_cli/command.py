"""`paddler batch`: submit a file of requests, watch it, fetch what came out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import rich_click as click
from msgspec import Struct
from rich.console import Console

from paddler.batch_cli.client import Away, Batch, BatchClient, CannotTalk
from paddler.batch_cli.shown import batch_block, batches_table, lines_told, new_progress
from paddler.batches.splitting import MAX_LINE, UTF8_BOM
from paddler.clock import SystemClock
from paddler.settings import option

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")

DEFAULT_URL = "http://127.0.0.1:8061"
POLL_S = 0.5
MAX_POLL_S = 10.0
"""Between tries while no balancer answers."""
_INPUT = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path)


_url = option("--url", help="As before the subcommand.")


class _Balancer(Struct, frozen=True):
    url: str
    api_key: str | None


def _shared(function: _F) -> _F:
    """Adds `url` and `as_json`."""
    function = option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)
    return _url(function)


def _files(function: _F) -> _F:
    """Adds `output` and `errors`."""
    function = option("--errors", type=_OUTPUT, help="Write the lines that failed to this file.")(function)
    return option("--output", "-o", type=_OUTPUT, help="Write the answers to this file, - for stdout.")(function)


_batch_id = click.argument("batch_id")  # pyright: ignore[reportUnknownMemberType]  # as settings.option
_input_file = click.argument("file", type=_INPUT)  # pyright: ignore[reportUnknownMemberType]


@click.group(name="batch")
@option("--url", default=DEFAULT_URL, help="A balancer's inference or OpenAI service.")
@option("--api-key", help="Where keys are needed; better by the variable, as others can see command lines.")
@click.pass_context
def command(ctx: click.Context, *, url: str, api_key: str | None) -> None:
    """Answer files of requests when there is time: whatever somebody waits for goes first."""
    ctx.obj = _Balancer(url, api_key)


@command.command(name="submit")
@_input_file
@option("--endpoint", help="The route of the requests; by default the `url` of the first line.")
@option("--window", default="24h", help="How long it may take, such as 30m, 24h or 7d; what is left then is not done.")
@option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch; may be given several times.")
@option("--no-wait", is_flag=True, help="Print the batch and return; it goes on by itself.")
@_files
@_shared
def submit_command(
    *,
    file: Path,
    endpoint: str | None,
    window: str,
    metadata: tuple[str, ...],
    no_wait: bool,
    output: Path | None,
    errors: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Upload FILE, one request a line, and wait for the batch. Exits with 1 unless it is completed."""
    _check_writable(output, errors)
    endpoint = endpoint or _first_url(file)
    pairs = dict(_pair(text) for text in metadata)

    def act(client: BatchClient) -> Batch:
        batch = client.create(client.upload(file), endpoint, window, pairs)
        # At once: whatever becomes of this command, the batch goes on.
        click.echo(f"submitted {batch.id}", err=True)
        return batch if no_wait else _wait(client, batch)

    batch = _talk(url, act)
    # Answers that go to stdout are alone there.
    _print_batch(batch, as_json=as_json, err="-" in (str(output), str(errors)))
    if batch.has_ended:
        _talk(url, lambda client: _fetch(client, batch, output, errors))
        sys.exit(0 if batch.status == "completed" else 1)


@command.command(name="status")
@_batch_id
@_shared
def status_command(*, batch_id: str, url: str | None, as_json: bool) -> None:
    """Show how far a batch has got."""
    _print_batch(_talk(url, lambda client: client.get(batch_id)), as_json=as_json)


@command.command(name="fetch")
@_batch_id
@_files
@_url
def fetch_command(*, batch_id: str, output: Path | None, errors: Path | None, url: str | None) -> None:
    """Write the answers of a batch that has ended, to stdout unless --output or --errors say where."""

    _check_writable(output, errors)

    def act(client: BatchClient) -> None:
        batch = client.get(batch_id)
        if not batch.has_ended:
            raise CannotTalk(f"{batch_id} is {batch.status} ({lines_told(batch)}); it has no files before it ends.")
        _fetch(client, batch, output if output or errors else Path("-"), errors)

    _talk(url, act)


@command.command(name="cancel")
@_batch_id
@_shared
def cancel_command(*, batch_id: str, url: str | None, as_json: bool) -> None:
    """Stop a batch; what it has done is kept."""
    _print_batch(_talk(url, lambda client: client.cancel(batch_id)), as_json=as_json)


@command.command(name="list")
@option("--limit", type=click.IntRange(1, 100), default=20, help="How many, the newest first.")
@_shared
def list_command(*, limit: int, url: str | None, as_json: bool) -> None:
    """List batches."""
    found = _talk(url, lambda client: client.list(limit))
    if as_json:
        _print_json(found)
    elif found.data:
        Console(highlight=False).print(batches_table(found.data))
        if found.has_more:
            click.echo("There are more; --limit shows up to 100.")
    else:
        click.echo("There is no batch.")


def _wait(client: BatchClient, batch: Batch) -> Batch:
    with new_progress() as progress:
        bar = progress.add_task(batch.status, total=None, told="")
        delay = POLL_S
        try:
            while True:
                counts = batch.request_counts
                told = f"[red]{counts.failed:,} failed[/]" if counts.failed else ""
                total, done = counts.total or None, counts.completed + counts.failed
                progress.update(bar, description=batch.status, total=total, completed=done, told=told)
                if batch.has_ended:
                    return batch
                time.sleep(delay)  # noqa: TID251  # a command that waits for nothing else
                try:
                    batch = client.get(batch.id)
                    delay = POLL_S
                except Away as error:
                    progress.console.print(str(error), style="yellow", markup=False)
                    delay = min(delay * 2, MAX_POLL_S)
        except KeyboardInterrupt:
            progress.stop()
            click.echo(f"{batch.id} goes on; look at it with: paddler batch status {batch.id}", err=True)
            sys.exit(130)


def _fetch(client: BatchClient, batch: Batch, output: Path | None, errors: Path | None) -> None:
    for path, file_id in ((output, batch.output_file_id), (errors, batch.error_file_id)):
        if path is None:
            continue
        if str(path) == "-":
            _download(client, file_id, sys.stdout.buffer)
            continue
        try:
            _write(client, file_id, path.resolve())
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None


def _write(client: BatchClient, file_id: str | None, path: Path) -> None:
    if _is_special(path):
        with path.open("wb") as out:
            _download(client, file_id, out)
        return
    # What is there stays until the answer is whole.
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as out:
            _download(client, file_id, out)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """A device or a pipe."""
    return path.exists() and not path.is_file()


def _check_writable(*paths: Path | None) -> None:
    """Before a wait of hours. Raises `click.ClickException`."""
    for path in paths:
        if path is None or str(path) == "-" or _is_special(path):
            continue
        folder = path.resolve().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise click.ClickException(f"{path} cannot be written: {folder} is not there, or not yours.")


def _download(client: BatchClient, file_id: str | None, out: BinaryIO) -> None:
    """Nothing for a batch in which nothing succeeded, or nothing failed."""
    if file_id is not None:
        client.download(file_id, out)
    out.flush()


class _Line(msgspec.Struct):
    url: str


def _first_url(path: Path) -> str:
    first = b""
    with path.open("rb") as file:
        # As the balancer reads it: without a byte order mark and blank lines.
        while not first and (line := file.readline(MAX_LINE)):
            first = line.removeprefix(UTF8_BOM).strip()
    try:
        return msgspec.json.decode(first, type=_Line).url
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise click.ClickException(f"{path}: the first line has no `url`; say --endpoint.") from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"--metadata {text!r} is not KEY=VALUE.")
    return key, value


def _talk(url: str | None, act: Callable[[BatchClient], _T]) -> _T:
    context = click.get_current_context()
    assert context is not None
    balancer: _Balancer = context.obj
    try:
        with contextlib.closing(BatchClient(url or balancer.url, balancer.api_key)) as client:
            return act(client)
    except CannotTalk as error:
        raise click.ClickException(str(error)) from None


def _print_batch(batch: Batch, *, as_json: bool, err: bool = False) -> None:
    if as_json:
        _print_json(batch, err=err)
        return
    console = Console(highlight=False, stderr=err)
    for block in batch_block(batch, SystemClock().wall()):
        console.print(block)


def _print_json(value: object, *, err: bool = False) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2), err=err)
