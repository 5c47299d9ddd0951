"""Contents of files in a directory, which all balancers and workers of a fleet see under one path."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

from paddler.batches.contents import CHUNK, gone
from paddler.clock import Clock

UNFINISHED = ".part"
UNFINISHED_S = 10 * 86_400
"""Longer than the window of a batch, whose outputs are not whole before it ends."""


class FolderContents:
    """One file each, below a folder that is named after the prefix of the fleet. `<id>.part` is not whole yet."""

    def __init__(self, folder: Path, prefix: str, clock: Clock) -> None:
        """Raises `OSError` when the folder cannot be made."""
        self.place = folder.as_uri()
        self._folder = folder / quote(prefix, safe="")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock

    async def write(self, file_id: str, offset: int, data: bytes, ttl_s: int) -> None:  # noqa: ARG002  # a protocol's
        await asyncio.to_thread(self._write, file_id, offset, data)

    def _write(self, file_id: str, offset: int, data: bytes) -> None:
        descriptor = os.open(self._unfinished(file_id), os.O_WRONLY | os.O_CREAT, 0o640)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, offset)
                offset += written
                view = view[written:]
        finally:
            os.close(descriptor)

    async def sync(self, file_id: str) -> None:
        await asyncio.to_thread(self._sync, self._unfinished(file_id), None)

    def _sync(self, path: Path, size: int | None) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            if size is not None:
                os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def seal(self, file_id: str, size: int, ttl_s: int) -> None:  # noqa: ARG002
        await asyncio.to_thread(self._seal, file_id, size)

    def _seal(self, file_id: str, size: int) -> None:
        unfinished, path = self._unfinished(file_id), self._path(file_id)
        if path.exists() and not unfinished.exists():  # whoever goes on after a crash seals again
            if path.stat().st_size < size:
                raise gone(file_id)
            return
        if size == 0:
            path.touch()
            return
        try:
            if unfinished.stat().st_size < size:
                raise gone(file_id)
            self._sync(unfinished, size)
            # Also over one that was sealed before Redis lost its tail and what it stood for.
            unfinished.replace(path)
            os.utime(path)
        except FileNotFoundError:
            raise gone(file_id) from None

    async def read(self, file_id: str, size: int) -> AsyncGenerator[bytes]:
        try:
            file = await asyncio.to_thread(self._path(file_id).open, "rb")
        except FileNotFoundError:
            raise gone(file_id) from None
        with file:
            while size:
                piece = await asyncio.to_thread(file.read, min(size, CHUNK))
                if not piece:
                    raise gone(file_id)
                size -= len(piece)
                yield piece

    async def delete(self, file_id: str, size: int) -> None:  # noqa: ARG002
        for path in (self._path(file_id), self._unfinished(file_id)):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def delete_unfinished(self) -> None:
        await asyncio.to_thread(self._delete_unfinished)

    def _delete_unfinished(self) -> None:
        oldest = self._clock.wall() - UNFINISHED_S
        for path in self._folder.glob(f"file-*{UNFINISHED}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    async def old_ids(self) -> list[str]:
        return await asyncio.to_thread(self._old_ids)

    def _old_ids(self) -> list[str]:
        oldest = self._clock.wall() - UNFINISHED_S
        found: list[str] = []
        for path in self._folder.glob("file-*"):
            with contextlib.suppress(FileNotFoundError):
                if path.suffix != UNFINISHED and path.stat().st_mtime < oldest:
                    found.append(path.name)
        return found

    def _path(self, file_id: str) -> Path:
        return self._folder / file_id

    def _unfinished(self, file_id: str) -> Path:
        return self._folder / f"{file_id}{UNFINISHED}"
