"""The typed function over the script of batches, which belong to no pool."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from paddler.store.scripts import ScriptCaller


class Changed(StrEnum):
    OK = "ok"
    LOST = "lost"
    MOVED = "moved"


class BatchScripts:
    def __init__(self, caller: ScriptCaller) -> None:
        self._caller = caller

    async def change_batch(
        self,
        key: str,
        *,
        expected: bytes = b"",
        record: bytes = b"",
        holder: str = "",
        lease_ms: int = 0,
        ttl_s: int = 0,
        lines: Sequence[int] = (),
    ) -> Changed:
        """Replace the record at `key` if it is still `expected`, while `holder` has the batch; prolong or, below 0, end
        its lease, and mark lines, counted from 0. Without `expected` the record stays as it is.

        Repeated with the same arguments it changes nothing and gives the same answer, but for an ended lease."""
        found = await self._caller.call("change_batch", key, 0, expected, record, holder, lease_ms, ttl_s, *lines)
        return Changed(found.decode())
