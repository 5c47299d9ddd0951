"""Where the bytes of files are: in Redis, in chunks, or in a directory that balancers and workers share.

Nothing here holds more than a chunk of a file. A write names its place, so that repeating it changes nothing, and bytes
behind the size that a record states do not count: whoever goes on after a crash just writes over them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from paddler.errors import FileNotFound
from paddler.store.client import Store
from paddler.store.keys import FileKeys

CHUNK = 256 * 1024
"""Bytes. A larger one would stand before the tokens of everybody for longer."""

REDIS = "redis"


class Contents(Protocol):
    @property
    def place(self) -> str:
        """What `FileRecord.place` calls it."""
        ...

    async def write(self, file_id: str, offset: int, data: bytes, ttl_s: int) -> None:
        """Put bytes at an offset that is not behind the end. They are kept for `ttl_s`, unless it is sealed."""
        ...

    async def sync(self, file_id: str) -> None:
        """Return once a crash of the machine costs nothing that was written."""
        ...

    async def seal(self, file_id: str, size: int, ttl_s: int) -> None:
        """It is whole and ends at `size`. Raises `FileNotFound` when some of it is gone."""
        ...

    def read(self, file_id: str, size: int) -> AsyncGenerator[bytes]:
        """The first `size` bytes, in pieces. Raises `FileNotFound` when some of it is gone."""
        ...

    async def delete(self, file_id: str, size: int) -> None: ...

    async def delete_unfinished(self) -> None:
        """Remove what uploads that were cut off have left, where no TTL does it."""
        ...

    async def old_ids(self) -> list[str]:
        """Files that were sealed so long ago that they have a record if anybody knows them, where no TTL removes
        others."""
        ...


class RedisContents:
    """Keys `chunk` of `FileKeys`."""

    place = REDIS

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._keys = FileKeys(store.prefix)

    async def write(self, file_id: str, offset: int, data: bytes, ttl_s: int) -> None:
        pipe = self._redis.pipeline(transaction=False)
        view = memoryview(data)
        while view:
            number, start = divmod(offset, CHUNK)
            piece = view[: CHUNK - start]
            key = self._keys.chunk(file_id, number)
            pipe.setrange(key, start, bytes(piece))
            pipe.expire(key, ttl_s)
            offset += len(piece)
            view = view[len(piece) :]
        await pipe.execute()

    async def sync(self, file_id: str) -> None:
        """Redis decides: `appendfsync`."""

    async def seal(self, file_id: str, size: int, ttl_s: int) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for key in self._chunks(file_id, size):
            pipe.expire(key, ttl_s)
        if not all(await pipe.execute()):
            raise gone(file_id)

    async def read(self, file_id: str, size: int) -> AsyncGenerator[bytes]:
        for key in self._chunks(file_id, size):
            wanted = min(size, CHUNK)
            piece: bytes = await self._redis.getrange(key, 0, wanted - 1)
            if len(piece) < wanted:
                raise gone(file_id)
            size -= wanted
            yield piece

    async def delete(self, file_id: str, size: int) -> None:
        if keys := self._chunks(file_id, size):
            await self._redis.unlink(*keys)

    async def delete_unfinished(self) -> None:
        """Their chunks have an hour."""

    async def old_ids(self) -> list[str]:
        """All chunks have a TTL."""
        return []

    def _chunks(self, file_id: str, size: int) -> list[str]:
        return [self._keys.chunk(file_id, number) for number in range((size + CHUNK - 1) // CHUNK)]


def gone(file_id: str) -> FileNotFound:
    return FileNotFound(f"The contents of the file {file_id!r} are not there any more.", param="file_id")
