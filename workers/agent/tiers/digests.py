"""SHA-256 of model files, remembered from one start to the next: a large file takes as long to read as to load.

    <cache>/digests/<SHA-256 of the path>.json     what the file was when it was read, and its digest

`<cache>` is the folder of downloaded models (`fetch/cache.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

import msgspec
from msgspec import Struct


class Digest(Struct, frozen=True):
    """Of a file that has not changed since: it has this device, inode, size and time still."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    sha256: str


def seen(path: Path) -> Digest:
    """What the file is now, without its digest. Raises `OSError`."""
    resolved = path.resolve()
    return _of(resolved.stat(), resolved)


def sha256_of(path: Path, cache: Path, before: Digest | None = None) -> str:
    """Reads the whole file unless it is known. Without a cache that can be written it is not remembered. Raises
    `OSError`, also where the file changes while it is read, or is not the one that was `seen` before."""
    resolved = path.resolve()
    note = cache / "digests" / f"{hashlib.sha256(os.fsencode(resolved)).hexdigest()}.json"
    known = _read(note)
    with resolved.open("rb") as file:
        found = _of(os.fstat(file.fileno()), resolved)
        if before is not None and before != found:
            raise OSError(f"{path} was replaced since it was loaded")
        before = found
        if known is not None and msgspec.structs.replace(known, sha256="") == before:
            return known.sha256
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _of(os.fstat(file.fileno()), resolved) != before:
            raise OSError(f"{path} was changed while it was read")
    _write(note, msgspec.structs.replace(before, sha256=digest))
    return digest


def _of(status: os.stat_result, path: Path) -> Digest:
    return Digest(str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, "")


def _read(note: Path) -> Digest | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Digest)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(note: Path, digest: Digest) -> None:
    """Whole or not at all."""
    draft = note.with_name(f"{note.name}.{secrets.token_hex(4)}.new")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.encode(digest))
        draft.replace(note)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
