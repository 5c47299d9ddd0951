"""The typed functions over the scripts of batches, which belong to no pool."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from paddler.store.scripts import ScriptCaller


class Changed(StrEnum):
    OK = "ok"
    LOST = "lost"
    MOVED = "moved"


class Opened(StrEnum):
    OK = "ok"
    FULL = "full"
    """As many batches are open as there may be."""
    BATCHES = "batches"
    """As many of its tenant."""
    LINES = "lines"
    """With this one its tenant would have too many lines open."""


class OpenedBatch(Struct, frozen=True):
    """`held` is how many batches or lines there are already, where that is why not."""

    outcome: Opened
    held: int = 0


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

    async def open_batch(
        self,
        key: str,
        batch_id: str,
        *,
        input_file_id: str,
        tenant: str,
        num_lines: int,
        max_all: int,
        max_batches: int | None = None,
        max_lines: int | None = None,
    ) -> OpenedBatch:
        """Enter a batch among those that have not ended, if neither all of them nor those of its tenant are too many.

        Repeated for a batch that is among them it changes nothing and gives the same answer."""
        bounds = [-1 if one is None else one for one in (max_batches, max_lines)]
        outcome, *held = await self._caller.call(
            "open_batch", key, 0, batch_id, input_file_id, tenant, num_lines, max_all, *bounds
        )
        return OpenedBatch(Opened(outcome.decode()), *held)
