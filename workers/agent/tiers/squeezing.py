"""Whether a state is kept compressed: where a sample of it becomes a fifth smaller. States of SmolLM2 do not.

Measured on blocks of 256 tokens of English text (f16 5.9 MB, q8_0 3.1 MB), one core: share of the size, MB/s in, out.

    |                           | f16                | q8_0                |
    | zstd, level 1             | 0.92   453    836  | 0.96    748   1017  |
    | zstd, level 3             | 0.92   451    564  | 0.96    376    781  |
    | lz4                       | 1.00  2455   3189  | 1.00   3422   6626  |
    | bytes sorted, then zstd 1 | 0.86   567    181  | 0.96    578    231  |
    | encrypted alone           | 1.00  2068   4142  | 1.00   3799   8360  |

So zstd would make reading five times as slow to save a twelfth; it pays for itself on links below 70 MB/s. lz4 finds
nothing, and sorting the two bytes of a number costs more than it saves. Memory of another kind may
hold zeros or repeat itself: that is what the sample is for, and costs 0.4 ms.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import zstandard

from workers.agent.saved_states import State

LEVEL = 1
SAMPLE = 1 << 16
"""Bytes, of which three in a state tell whether the whole is worth trying."""
MIN_GAIN = 0.2
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
