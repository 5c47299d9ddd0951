"""Whether two agents speak of the same tokens, and whether they compute the same: names that need no file's path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from paddler.engine_settings import EngineSettings
from workers.agent.llama import Model
from workers.agent.shards import shards_of

NUM_SAMPLES = 64
SAMPLE_SIZE = 4096
"""Bytes. Reading all of a file to compare it would take longer than loading it: two trainings of one model differ
everywhere."""


def vocabulary_of(model: Model) -> str:
    """Equal where token ids mean the same bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in model.pieces:
        digest.update(len(piece).to_bytes(4) + piece)
    digest.update(repr(sorted(model.end_tokens)).encode())
    return digest.hexdigest()


def weights_of(model: Model, settings: EngineSettings) -> str:
    """Equal where the weights are, adapters included, and inputs are pooled alike."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr(sorted(model.metadata.items())).encode())
    digest.update(repr(settings.pooling).encode())
    _add(digest, shards_of(model.path))
    for adapter in settings.lora_adapters:
        digest.update(repr(adapter.scale).encode())
        _add(digest, (Path(adapter.path),))
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, paths: Iterable[Path]) -> None:
    for path in paths:
        size = path.stat().st_size
        digest.update(size.to_bytes(8))
        with path.open("rb") as file:
            for number in range(NUM_SAMPLES):
                file.seek(number * size // NUM_SAMPLES)
                digest.update(file.read(SAMPLE_SIZE))
