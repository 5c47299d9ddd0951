"""Whether a state is kept compressed, and how.

TO MEASURE
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import zstandard

from workers.agent.saved_states import State

LEVEL = 1
SAMPLE = 1 << 16
"""Bytes, of which three in a state tell whether the whole is worth trying."""
MIN_GAIN = 0.1
"""A state that does not become smaller by this share is kept as it is."""


class Codec(IntEnum):
    NONE = 0
    ZSTD = 1


class Unsqueezable(Exception):
    """What was compressed is no state of this size."""


def squeeze(state: State) -> tuple[Codec, memoryview]:
    """The smaller of the two, if it is worth it."""
    raw = state.data
    most = int(len(raw) * (1 - MIN_GAIN))
    sample = _sample(raw)
    if not raw or len(_compress(sample)) > len(sample) * (1 - MIN_GAIN):
        return Codec.NONE, raw
    squeezed = _compress(raw)
    return (Codec.ZSTD, memoryview(squeezed)) if len(squeezed) <= most else (Codec.NONE, raw)


def unsqueeze(codec: Codec, payload: State, num_bytes: int) -> State:
    """The state, of so many bytes. Raises `Unsqueezable`."""
    if codec is Codec.ZSTD:
        try:
            data = zstandard.ZstdDecompressor().decompress(payload.data, max_output_size=num_bytes)
        except zstandard.ZstdError as error:
            raise Unsqueezable(str(error)) from error
        payload = np.frombuffer(data, np.uint8)
    if len(payload) != num_bytes:
        raise Unsqueezable(f"{len(payload)} bytes, not {num_bytes}")
    return payload


def _compress(data: bytes | memoryview) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL).compress(data)


def _sample(raw: memoryview) -> bytes | memoryview:
    if len(raw) <= 3 * SAMPLE:
        return raw
    middle = len(raw) // 2
    return bytes(raw[:SAMPLE]) + bytes(raw[middle : middle + SAMPLE]) + bytes(raw[-SAMPLE:])
