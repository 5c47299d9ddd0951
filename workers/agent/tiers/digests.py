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
    """Of a file that has not changed since: it has this inode, size and time still."""

    path: str
    inode: int
    size: int
    mtime_ns: int
    sha256: str


def sha256_of(path: Path, cache: Path) -> str:
    """Reads the whole file unless it is known. Without a cache that can be written it is not remembered. Raises
    `OSError`, also where the file changes while it is read."""
    resolved = path.resolve()
    note = cache / "digests" / f"{hashlib.sha256(os.fsencode(resolved)).hexdigest()}.json"
    known = _read(note)
    with resolved.open("rb") as file:
        before = _now(file.fileno(), resolved, "")
        if known is not None and msgspec.structs.replace(known, sha256="") == before:
            return known.sha256
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _now(file.fileno(), resolved, "") != before:
            raise OSError(f"{path} was changed while it was read")
    _write(note, msgspec.structs.replace(before, sha256=digest))
    return digest


def _now(handle: int, path: Path, sha256: str) -> Digest:
    status = os.fstat(handle)
    return Digest(str(path), status.st_ino, status.st_size, status.st_mtime_ns, sha256)


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
