"""GGUF files that are read more than once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gguf import GGUFReader


@cache
def reader_of(path: Path) -> GGUFReader:
    """For a file that does not change: of a vocabulary of 49,152 tokens reading takes seconds."""
    return GGUFReader(path)
