"""Which keys and messages this version writes, as a number, and the oldest beside which it works.

The format is the whole of what processes leave in Redis for each other: keys, fields of hashes, messages, and what the
scripts keep true between them. Processes of two versions run different scripts on the same keys at once, so a change
that the other version cannot live with takes a new number; `docs/upgrades.md` says which do, and
`tests/wire/test_format.py` has what a number stands for.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from paddler.store.keys import PoolKeys

FORMAT = 1
OLDEST_FORMAT = 1
FIRST_FORMAT = 1
"""Of processes that tell none: they are from before formats had numbers."""


class Record(Struct, frozen=True):
    """What a pool says of itself: the highest number that has worked on it, the lowest that still may, and which
    version of Paddler brought the former."""

    number: int
    oldest: int
    version: str = ""


async def read_record(client: Any, keys: PoolKeys) -> Record | None:
    """None for a pool that has none: nobody has worked on it, or older versions alone. Raises what Redis raises."""
    number, oldest, version = await client.hmget(keys.format(), "number", "oldest", "version")
    if number is None or oldest is None:
        return None
    return Record(int(number), int(oldest), (version or b"").decode())
