"""How many tokens requests have said so far, counted in their journals as these grow.

Agents tell it too, but only as often as they tell of themselves (10 s): too seldom for who looks on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddler.store.client import Store
from paddler.store.keys import PoolKeys
from paddler.wire.balancer import Tokens, decode_frames

CHUNK = 64 * 1024
"""Bytes of one journal that a look reads at most. A frame that is larger has vectors, and no tokens."""

BUDGET = 1024 * 1024
"""Bytes of all journals that a look reads: 30 ms of decoding. Long ones that are met late are caught up with."""

_LENGTH_SIZE = 4


class JournalTokens:
    """Remembers how far each journal was read."""

    def __init__(self, store: Store, keys: PoolKeys) -> None:
        self._redis: Any = store.redis
        self._keys = keys
        self._read: dict[str, tuple[int, int]] = {}

    async def count(self, request_ids: Sequence[str]) -> dict[str, int]:
        """Of each of these; all others are forgotten. Raises what Redis raises."""
        self._read = {one: self._read.get(one, (0, 0)) for one in request_ids}
        grown = await self._grown()
        pipe = self._redis.pipeline(transaction=False)
        for request_id, size in grown.items():
            offset, _ = self._read[request_id]
            pipe.getrange(self._keys.journal(request_id), offset, offset + size - 1)
        for request_id, data in zip(grown, await pipe.execute() if grown else [], strict=True):
            offset, number = self._read[request_id]
            end = _whole(data)
            self._read[request_id] = (offset + end, number + _num_tokens(data[:end]))
        return {request_id: number for request_id, (_, number) in self._read.items()}

    async def _grown(self) -> dict[str, int]:
        """Whose journal has more, and how much of it to read; those that are least behind first, so that a few long
        ones do not keep the others from being told."""
        pipe = self._redis.pipeline(transaction=False)
        for request_id in self._read:
            pipe.strlen(self._keys.journal(request_id))
        lengths: list[int] = await pipe.execute() if self._read else []
        more = {
            request_id: min(length - offset, CHUNK)
            for (request_id, (offset, _)), length in zip(self._read.items(), lengths, strict=True)
            if length > offset
        }
        left, grown = BUDGET, dict[str, int]()
        for request_id in sorted(more, key=more.__getitem__):
            left -= more[request_id]
            if left < 0:
                break
            grown[request_id] = more[request_id]
        return grown


def _whole(data: bytes) -> int:
    """Where the last whole frame of a chunk ends; behind a frame that no chunk holds."""
    end = 0
    while end + _LENGTH_SIZE <= len(data):
        after = end + _LENGTH_SIZE + int.from_bytes(data[end : end + _LENGTH_SIZE])
        if after > len(data):
            return after if after - end > CHUNK else end
        end = after
    return end


def _num_tokens(data: bytes) -> int:
    try:
        return sum(len(frame.ids) for frame in decode_frames(data) if isinstance(frame, Tokens))
    except ValueError:
        return 0  # it ends within such a large frame, or a newer version writes what this one cannot read
