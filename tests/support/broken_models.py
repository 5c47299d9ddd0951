"""GGUF files that lie about themselves, made from a sound one."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from short_model import place_of

_UINT32, _FLOAT = 4, 6  # GGUF_TYPE_*


def with_field(sound: Path, target: Path, name: str, value: float) -> Path:
    """A copy in which one number of the metadata is another."""
    data = bytearray(sound.read_bytes())
    place = place_of(bytes(data), name)
    (kind,) = struct.unpack_from("<I", data, place - 4)
    struct.pack_into("<f" if kind == _FLOAT else "<I", data, place, value)
    target.write_bytes(data)
    return target


def that_kills_the_reader(sound: Path, target: Path) -> Path:
    """llama.cpp asserts the number of layers while it reads the metadata."""
    return with_field(sound, target, "llama.block_count", 2**32 - 1)


def that_kills_in_a_decode(sound: Path, target: Path) -> Path:
    """It reads well, and the first normalisation asserts."""
    return with_field(sound, target, "llama.attention.layer_norm_rms_epsilon", math.nan)


def projection_that_kills(sound: Path, target: Path) -> Path:
    """The shape of a head comes from their number, and the first reshape asserts."""
    return with_field(sound, target, "clip.vision.attention.head_count", 0)


def adapter_that_kills(sound: Path, target: Path) -> Path:
    """A number that llama.cpp asks for as a float, and whose kind it asserts, is an integer."""
    data = bytearray(sound.read_bytes())
    struct.pack_into("<I", data, place_of(bytes(data), "adapter.lora.alpha") - 4, _UINT32)
    target.write_bytes(data)
    return target


def cut(sound: Path, target: Path, size: int) -> Path:
    """An incomplete download."""
    with sound.open("rb") as whole:
        target.write_bytes(whole.read(size))
    return target
