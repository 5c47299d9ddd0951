"""A server of files, and a cache that is empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer

from workers.agent.fetch.cache import ModelCache


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(root=tmp_path / "cache", spare_bytes=0)
