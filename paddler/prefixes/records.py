"""What Redis has of a pinned prefix, and what agents tell of those they hold. Times are ms since the epoch.

Records are JSON objects: an older process skips fields that it does not know, so new ones have defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

MAX_PREFIXES = 64
"""Of a pool."""
MAX_BYTES = 1 << 20
"""Of what one is, as it is encoded for agents."""


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`tenant` None: it is everybody's. `num_bytes` is the size of its content."""

    num_bytes: int
    created_ms: int
    tenant: str | None = None
    author: str = ""


class Prefix(Struct, frozen=True, kw_only=True):
    """A pinned prefix. A pool gives a version once, so the same version is the same content for the same tenant."""

    name: str
    version: int
    record: Record

    @property
    def tenant(self) -> str | None:
        return self.record.tenant


State = Literal["waiting", "computing", "resident", "saved", "refused"]
"""`resident`: in the KV cache; `saved`: it has left that, and comes back from host memory; `refused`: it cannot be
pinned there, `detail` says why."""


class Held(Struct, frozen=True, omit_defaults=True):
    """How an agent stands to a prefix: so many tokens have to be there, so many bytes are what it holds of them."""

    name: str
    version: int
    state: State
    num_tokens: int = 0
    num_bytes: int = 0
    detail: str = ""


_held = msgspec.json.Decoder(list[Held])
_record = msgspec.json.Decoder(Record)


def encode_held(held: Iterable[Held]) -> bytes:
    """For the field `pinned` of an agent's hash."""
    return msgspec.json.encode(list(held))


def decode_held(data: bytes | None) -> list[Held]:
    """[] for what no agent of this format tells."""
    try:
        return _held.decode(data) if data else []
    except msgspec.MsgspecError:
        return []


def encode_record(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode_prefix(name: str, entry: bytes) -> Prefix:
    """From an entry of the hash `prefixes`. Raises `msgspec.MsgspecError`."""
    version, _, rest = entry.partition(b" ")
    record = _record.decode(rest.partition(b" ")[2])
    return Prefix(name=name, version=msgspec.json.decode(version, type=int), record=record)
