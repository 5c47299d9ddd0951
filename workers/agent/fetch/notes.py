"""A file of the cache, its beginning, and what is known of them beside them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct


class Note(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a file or of its beginning: its size in the end, what its server calls this version of it, and
    the SHA-256 that it had when it was last modified, at `mtime_ns`."""

    url: str
    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    sha256: str | None = None
    mtime_ns: int = 0


def read_note(path: Path) -> Note | None:
    """That of the file `path`; None without one, or if it cannot be read."""
    try:
        return msgspec.json.decode(_note_of(path).read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError):
        return None


def write_note(path: Path, note: Note) -> None:
    """Whole or not at all."""
    target = _note_of(path)
    draft = target.with_name(f"{target.name}.new")
    draft.write_bytes(msgspec.json.encode(note))
    draft.replace(target)


def discard(path: Path) -> None:
    """A file and what is known of it."""
    path.unlink(missing_ok=True)
    _note_of(path).unlink(missing_ok=True)


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def size_of_partial(path: Path) -> int:
    """Bytes there are of the file `path`, which is not there yet."""
    try:
        return partial_of(path).stat().st_size
    except OSError:
        return 0


def install(path: Path, note: Note) -> None:
    """The finished partial file becomes `path`: whole, or not at all, also if the power goes."""
    partial = partial_of(path)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    write_note(path, note)
    partial.replace(path)
    _note_of(partial).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
