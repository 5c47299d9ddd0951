"""What can happen to a state that lies somewhere, to bytes as they are in a file or in a value."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]


def _flipped(data: bytes, drawn: random.Random) -> bytes:
    at = drawn.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << drawn.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, drawn: random.Random) -> bytes:
    return data[: drawn.randrange(1, len(data))]


def _zeroed(data: bytes, drawn: random.Random) -> bytes:
    at = drawn.randrange(len(data))
    return data[:at] + bytes(min(4096, len(data) - at)) + data[at + 4096 :]


DAMAGES: dict[str, Damage] = {
    "a bit flipped": _flipped,
    "cut off": _cut,
    "a page of zeros": _zeroed,
    "empty": lambda _data, _drawn: b"",
    "longer": lambda data, drawn: data + drawn.randbytes(100),
    "noise": lambda data, drawn: drawn.randbytes(len(data)),
}


def damage_files(files: Sequence[Path], seed: int) -> None:
    """Each in one of these ways; the last two have each other's content."""
    drawn = random.Random(seed)
    for number, file in enumerate(files[:-2]):
        file.write_bytes(list(DAMAGES.values())[number % len(DAMAGES)](file.read_bytes(), drawn))
    first, second = files[-2].read_bytes(), files[-1].read_bytes()
    files[-2].write_bytes(second)
    files[-1].write_bytes(first)


def damage_values(states: Any, names: Sequence[bytes], seed: int) -> None:
    """The same of strings in Redis."""
    drawn = random.Random(seed)
    for number, name in enumerate(names[:-2]):
        states.set(name, list(DAMAGES.values())[number % len(DAMAGES)](states.get(name), drawn))
    first, second = states.get(names[-2]), states.get(names[-1])
    states.set(names[-2], second)
    states.set(names[-1], first)
