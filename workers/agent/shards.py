"""The files of a model: a GGUF that was split names its parts alike, and llama.cpp is told of the first alone."""

from __future__ import annotations

import re
from pathlib import Path

MAX_SHARDS = 1000
"""More are no model's; each is looked at once a second while an agent waits."""

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""`llama_split_path` of llama.cpp."""


def shards_of(path: Path) -> tuple[Path, ...]:
    """All parts in their order, also those that are not there; the file itself if it is none of several."""
    found = _SHARD.fullmatch(path.name)
    number = int(found[3]) if found else 0
    if found is None or not 1 <= number <= MAX_SHARDS or not 1 <= int(found[2]) <= number:
        return (path,)
    return tuple(path.with_name(f"{found[1]}-{one:05d}-of-{number:05d}.gguf") for one in range(1, number + 1))
