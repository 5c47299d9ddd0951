"""A model with fewer of its layers: the same vocabulary, template and shapes, and text that means less, for a part of
the work. For tests of what an engine does with a model, whatever that says."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

_STRING, _ARRAY = 8, 9  # GGUF_TYPE_*
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_BEGIN = 24
"""Of the fields: magic, version, numbers of tensors and fields are before them."""
_ALIGNMENT = 32


def place_of(data: bytes, name: str) -> int:
    """Where the value of a field stands; its type is in the four bytes before."""
    key = struct.pack("<Q", len(name)) + name.encode()
    return data.index(key, _BEGIN) + len(key) + 4


def shorten(whole: Path, path: Path, layers: Sequence[int], *, architecture: str = "llama") -> Path:
    """Write `whole` with these of its layers to `path`."""
    data = whole.read_bytes()
    num_tensors, num_fields = struct.unpack_from("<QQ", data, 8)
    at = _BEGIN
    for _ in range(num_fields):
        at = _after_value(data, _after_string(data, at))
    fields = bytearray(data[:at])
    struct.pack_into("<I", fields, place_of(data, f"{architecture}.block_count"), len(layers))
    infos: dict[str, tuple[bytes, int]] = {}
    for _ in range(num_tensors):
        end = _after_string(data, at)
        name = data[at + 8 : end].decode()
        (num_dimensions,) = struct.unpack_from("<I", data, end)
        place = end + 4 + 8 * num_dimensions + 4
        infos[name] = data[end:place], struct.unpack_from("<Q", data, place)[0]
        at = place + 8
    begin = _aligned(at)
    offsets = sorted([offset for _, offset in infos.values()] + [len(data) - begin])
    ends = dict(itertools.pairwise(offsets))
    kept, told, offset = [b""], bytearray(), 0
    for name, (shape, old) in _kept(infos, layers).items():
        tensor = data[begin + old : begin + ends[old]]
        tensor += bytes(-len(tensor) % _ALIGNMENT)
        told += struct.pack("<Q", len(name)) + name.encode() + shape + struct.pack("<Q", offset)
        kept.append(tensor)
        offset += len(tensor)
    struct.pack_into("<Q", fields, 8, len(kept) - 1)
    head = bytes(fields + told)
    path.write_bytes(head + bytes(_aligned(len(head)) - len(head)) + b"".join(kept))
    return path


def _kept(infos: dict[str, tuple[bytes, int]], layers: Sequence[int]) -> dict[str, tuple[bytes, int]]:
    kept = {name: info for name, info in infos.items() if not name.startswith("blk.")}
    for number, layer in enumerate(layers):
        old = f"blk.{layer}."
        kept |= {f"blk.{number}.{name.removeprefix(old)}": infos[name] for name in infos if name.startswith(old)}
    return kept


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT


def _after_string(data: bytes, at: int) -> int:
    return at + 8 + struct.unpack_from("<Q", data, at)[0]


def _after_value(data: bytes, at: int) -> int:
    """`at` is where its type stands."""
    (kind,) = struct.unpack_from("<I", data, at)
    at += 4
    if kind == _STRING:
        return _after_string(data, at)
    if kind != _ARRAY:
        return at + _SIZES[kind]
    kind, number = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind != _STRING:
        return at + number * _SIZES[kind]
    for _ in range(number):
        at = _after_string(data, at)
    return at
