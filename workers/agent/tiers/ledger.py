"""How many bytes of blocks a folder holds, said by a file in it, so that several agents keep one bound.

The number is never too small: bytes are added before a file has them and taken away when it is gone, and both happen
under the folder's lock. An agent that dies between the two leaves it too large, until somebody counts anew.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout

from workers.agent.tiers.contract import TierUnavailable

LOCK_S = 5.0
"""An agent that holds the lock for longer was stopped."""
_RECORD = struct.Struct("<QQ")


class Ledger:
    """Of one folder. Everything but `held` is asked under that; the system's errors come out."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger"
        self._lock = FileLock(folder / "lock", timeout=LOCK_S, mode=0o600, thread_local=False)
        self._seen = -1

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Alone among the agents of this folder; not for two threads of one. Raises `TierUnavailable`, `OSError`."""
        try:
            self._lock.acquire(poll_interval=0.005)
        except Timeout:
            raise TierUnavailable(f"another agent has held {self._lock.lock_file} for {LOCK_S:.0f} s") from None
        try:
            yield
        finally:
            self._lock.release()

    def read(self) -> int | None:
        """The bytes; None: nobody has counted yet."""
        record = self._read()
        return None if record is None else record[0]

    @property
    def is_changed(self) -> bool:
        """Whether another agent has added or removed something since this one counted."""
        record = self._read()
        return record is None or record[1] != self._seen

    def add(self, num_bytes: int) -> None:
        """So many more, or fewer."""
        before, changes = self._read() or (0, 0)
        if changes == self._seen:
            self._seen += 1
        self._write(max(before + num_bytes, 0), changes + 1)

    def count(self, num_bytes: int) -> None:
        """So many there are, as this agent has found."""
        _, changes = self._read() or (0, 0)
        self._seen = changes + 1
        self._write(num_bytes, self._seen)

    def _read(self) -> tuple[int, int] | None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        return _RECORD.unpack(data) if len(data) == _RECORD.size else None

    def _write(self, num_bytes: int, changes: int) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, _RECORD.pack(num_bytes, changes), 0)
        finally:
            os.close(handle)
