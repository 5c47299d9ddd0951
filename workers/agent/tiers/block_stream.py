"""What goes between two agents: names there, packed blocks back.

`POST /kv/blocks`, with a MessagePack array of names as its body and a pass (`passes.py`). The answer is a stream of
blocks, each behind its length (big endian, 4 bytes), in the order of the names and up to the first that is missing;
then a length of 0, without which something was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from workers.agent.tiers.names import NAME_SIZE

PATH = "/kv/blocks"
MAX_NAMES = 1024
MAX_BODY = 32 * 1024
"""Bytes; names take 18 each."""
LENGTH_SIZE = 4
END = bytes(LENGTH_SIZE)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[bytes])


def encode_names(names: Sequence[bytes]) -> bytes:
    return _encoder.encode(names[:MAX_NAMES])


def decode_names(body: bytes) -> list[bytes]:
    """Raises `ValueError`."""
    names = _decoder.decode(body)
    if not 0 < len(names) <= MAX_NAMES or any(len(name) != NAME_SIZE for name in names):
        raise ValueError(f"expected 1 to {MAX_NAMES} names of {NAME_SIZE} bytes")
    return names


def length_of(packed: bytes) -> bytes:
    return len(packed).to_bytes(LENGTH_SIZE, "big")
