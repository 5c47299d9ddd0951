"""Pages of an index in Redis: a sorted set of ids by creation time, whose records may have expired."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")

STEP = 200
"""Records that are read at once."""
INDEX_S = 45 * 86_400
"""TTL of an index; longer than anything in it lives."""


class Page(Struct, Generic[T], frozen=True):
    """`has_more`: there are others behind the last of `items`."""

    items: list[T]
    has_more: bool


class Index(Generic[T]):
    def __init__(self, redis: Any, key: str, record_key: Callable[[str], str], decode: Callable[[bytes], T]) -> None:
        self._redis = redis
        self._key = key
        self._record_key = record_key
        self._decode = decode

    def add(self, pipe: Any, record_id: str, created_at: float) -> None:
        """Into a pipeline, beside the record."""
        pipe.zadd(self._key, {record_id: created_at})
        pipe.expire(self._key, INDEX_S)

    async def size(self) -> int:
        return await self._redis.zcard(self._key)

    async def page(
        self,
        *,
        after: str | None,
        limit: int,
        newest_first: bool,
        wanted: Callable[[T], bool],
        is_known: Callable[[T], bool],
    ) -> Page[T] | None:
        """The first records behind `after`; None when there is no such one, or it must not be known to who asks."""
        start = 0
        if after is not None:
            rank = await (self._redis.zrevrank if newest_first else self._redis.zrank)(self._key, after)
            (data,) = await self._read([after.encode()])
            if rank is None or (data is not None and not is_known(self._decode(data))):
                return None
            start = rank + 1
        found: list[T] = []
        async for record in self.records(start, newest_first=newest_first):
            if wanted(record):
                if len(found) == limit:
                    return Page(found, has_more=True)
                found.append(record)
        return Page(found, has_more=False)

    async def records(self, start: int = 0, *, newest_first: bool = False) -> AsyncIterator[T]:
        """All there are, from a rank on."""
        while ids := await self._redis.zrange(self._key, start, start + STEP - 1, desc=newest_first):
            for data in await self._read(ids):
                if data is not None:
                    yield self._decode(data)
            start += len(ids)

    async def expired(self) -> list[str]:
        """Ids in the index whose records are gone."""
        gone: list[str] = []
        start = 0
        while ids := await self._redis.zrange(self._key, start, start + STEP - 1):
            gone += [one.decode() for one, data in zip(ids, await self._read(ids), strict=True) if data is None]
            start += len(ids)
        return gone

    async def remove(self, ids: list[str]) -> None:
        if ids:
            await self._redis.zrem(self._key, *ids)

    async def _read(self, ids: list[bytes]) -> list[bytes | None]:
        pipe = self._redis.pipeline(transaction=False)
        for one in ids:
            pipe.get(self._record_key(one.decode()))
        return await pipe.execute()
