"""The settings of processes that read or write files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import rich_click as click

from paddler.batches.contents import REDIS, Contents, RedisContents
from paddler.batches.files import MAX_FILE, MAX_STORED
from paddler.batches.folder import FolderContents
from paddler.clock import Clock
from paddler.settings import option
from paddler.store.client import Store

_F = TypeVar("_F", bound=Callable[..., Any])


class _FileStore(click.ParamType[str, str]):
    name = "redis|file:///dir"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != REDIS and _folder(value) is None:
            self.fail(
                f"{value!r} is neither `redis` nor the URL of a directory, such as file:///srv/paddler.", param, ctx
            )
        return value


file_store_option = option(
    "--file-store",
    type=_FileStore(),
    default=REDIS,
    help="Where files of batches are kept: in Redis, or in a directory that all balancers and workers share.",
)
"""Adds `file_store`."""


def balancer_file_options(function: _F) -> _F:
    """Adds `file_store`, `max_file`, `max_stored`, and `tenant_file_bytes`, `tenant_open_batches` and
    `tenant_batch_lines`, which are None for no bound."""
    for one in (
        option(
            "--tenant-batch-lines",
            type=click.IntRange(min=1),
            help="Lines that batches of one tenant which have not ended may have together; one more gets 429. A key's "
            "own limit comes first.",
        ),
        option(
            "--tenant-open-batches",
            type=click.IntRange(min=1),
            help="Batches of one tenant that may be under way; one more gets 429. A key's own limit comes first.",
        ),
        option(
            "--tenant-file-bytes",
            type=click.IntRange(min=1),
            help="Bytes that files of one tenant may have together; then uploads get 413. A key's own limit comes "
            "first.",
        ),
        option(
            "--max-stored",
            type=click.IntRange(min=1),
            default=MAX_STORED,
            help="Bytes that all files together may have, outputs of batches among them; then uploads get 507.",
        ),
        option("--max-file", type=click.IntRange(min=1), default=MAX_FILE, help="Largest file in bytes."),
        file_store_option,
    ):
        function = one(function)
    return function


def contents_of(store: Store, file_store: str, clock: Clock) -> Contents:
    """What `--file-store` names. Raises `click.ClickException` when it cannot be used."""
    folder = _folder(file_store)
    if folder is None:
        return RedisContents(store)
    try:
        return FolderContents(folder, store.prefix, clock)
    except OSError as error:
        raise click.ClickException(f"--file-store {file_store} cannot be used: {error.strerror}.") from None


def _folder(url: str) -> Path | None:
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        return None
    return Path(unquote(parts.path))
