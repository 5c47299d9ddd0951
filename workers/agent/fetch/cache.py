"""The folder in which the agents of a host keep the files they have downloaded.

    <root>/downloaded-models/<SHA-256 of the URL>/
        lock                  held, by the kernel's file lock, by the one process that downloads
        model.gguf            whole: it appears by a rename
        model.gguf.json       what is known of it
        model.gguf.partial    as far as it has come
        model.gguf.partial.json

Files of a split model lie in the folder of its first. Locks are never removed: whoever holds a removed one and the next
to come would both be alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from msgspec import Struct

from paddler.issues import IssueKind
from workers.agent.fetch.errors import FetchError

SPARE_BYTES = 256 * 1024 * 1024
"""What a download leaves free on the disk, which may be Redis's too."""
TIMEOUT_S = 10.0

Progress = Callable[[int, int | None, str], None]
"""Told bytes done and bytes in all (None: unknown) of all files of a model together, and the name of the one that is
under way; from another thread and up to some thousand times a second. An exception from it ends the download."""


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class ModelCache(Struct, frozen=True, kw_only=True):
    """Where models are kept and what is needed to get them.

    `token_files` are bearer tokens by host (as `addresses.host_of` names it), each sent to that host alone.
    `hub` is the cache of `huggingface_hub`, `hub_endpoint` its server; None: as its own variables say. `timeout_s`
    bounds a connection's making and every wait for the next bytes."""

    root: Path
    token_files: Mapping[str, Path] = {}
    hub: Path | None = None
    hub_endpoint: str | None = None
    hub_token_file: Path | None = None
    timeout_s: float = TIMEOUT_S
    spare_bytes: int = SPARE_BYTES
    free_bytes: Callable[[Path], int] = free_bytes

    @property
    def downloads(self) -> Path:
        return self.root / "downloaded-models"

    @property
    def hub_locks(self) -> Path:
        return self.root / "hub-locks"


def default_root(environ: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/paddler`, else `~/.cache/paddler`. A relative `XDG_CACHE_HOME` counts for nothing, as the XDG
    specification has it."""
    given = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME", "") or os.path.expanduser("~")
    return (Path(given) if given.startswith("/") else Path(home) / ".cache") / "paddler"


def make_folder(folder: Path) -> None:
    with telling_of_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def locked(path: Path, kind: IssueKind) -> Generator[None]:
    """Alone among the processes of this host. Raises `FetchError` of `kind` at once while another is in here."""
    lock = FileLock(path, timeout=0)
    with telling_of_disk(path.parent):
        try:
            lock.acquire()
        except Timeout as error:
            what = f"another process downloads it; it holds {path}"
            raise FetchError(kind, what, lock_path=str(path)) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def telling_of_disk(folder: Path) -> Generator[None]:
    """What the system has against writing in the folder becomes a `FetchError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FetchError("CacheStorageIsFull", f"no room in {folder}: {error.strerror}") from error
        if error.errno is None:
            raise  # it is of a library's own making
        raise FetchError("CacheDirectoryIsNotWritable", f"cannot write to {folder}: {error.strerror}") from error


def check_room(cache: ModelCache, folder: Path, needed: int) -> None:
    """Raises `FetchError` (`CacheStorageIsFull`) unless so many bytes fit beside what stays free."""
    free = cache.free_bytes(folder)
    if free - cache.spare_bytes < needed:
        what = f"{_gb(needed)} to download, {_gb(free)} free on the disk of {folder}"
        raise FetchError("CacheStorageIsFull", f"{what}, of which {_gb(cache.spare_bytes)} must stay free")


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10_000_000 else f"{count:,} bytes"
