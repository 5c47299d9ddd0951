"""What balancers keep of a stored response beside its request (`response:<id>`): MessagePack, an array."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class StoredResponse(Struct, frozen=True, array_like=True):
    """`items` is what the client sent as input: a JSON array of the items of this turn. `ancestors` are the ids of the
    requests of the turns before it, the oldest first; `num_bytes` are those of the items of all turns together."""

    items: bytes
    ancestors: tuple[str, ...] = ()
    num_bytes: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredResponse)


def encode_stored(record: StoredResponse) -> bytes:
    return _encoder.encode(record)


def decode_stored(data: bytes) -> StoredResponse:
    """Raises `msgspec.MsgspecError` for bytes that are no record."""
    return _decoder.decode(data)
