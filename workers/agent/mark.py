"""A start that never came to its end: the next one looks at the model more closely (`probe.py`).

A first look computes nothing, so a file whose numbers only end the process in a decode gets past it. The mark is what
keeps that from becoming a loop: one death, then the second look finds out where it can do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from paddler.store.client import TROUBLE, Store
from paddler.store.keys import MARK_S, PoolKeys

Stat = tuple[int, int, int]
"""Inode, size and time of a file."""


class StartMark:
    """Of one agent's name on one host with one set of files as they are now. Without Redis there is none."""

    def __init__(self, store: Store, keys: PoolKeys, *, origin: str, files: Sequence[Path]) -> None:
        self._store = store
        self._keys = keys
        self._origin = origin
        self._files = files
        self._key = ""

    async def begin(self) -> bool:
        """Set the mark; whether it was there already. Not with an engine without files."""
        if not self._files:
            return False
        state = [self._origin, *(f"{path.resolve()} {stat_of(path)}" for path in self._files)]
        self._key = self._keys.starting(hashlib.sha256("\0".join(state).encode()).hexdigest()[:32])
        with contextlib.suppress(*TROUBLE):
            return not await self._store.redis.set(self._key, 1, nx=True, ex=MARK_S)
        return False

    async def end(self) -> None:
        """The start has come to an end: the engine is there, or a first look has found out why not."""
        if self._key:
            with contextlib.suppress(*TROUBLE):
                await self._store.redis.delete(self._key)


def stat_of(path: Path) -> Stat | None:
    """Changes when the file does; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
