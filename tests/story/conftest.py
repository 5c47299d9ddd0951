"""Two fleets for the whole folder, because starting one takes seconds: `up`, and one started by hand.

A test may kill what it likes of them; the next one waits until they are whole again. Tests of each are a group, so that
two workers have something to do.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from story_harness import CommandFleet, Queue, open_queue, openai_client
from up_harness import Up

from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

SLOTS = 4
STOP_S = 5.0
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups by the fleet that a test asks for. One that asks for both, or starts its own `up`, is with those of `up`,
    which take less time."""
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("xdist_group") is None:
            asked: list[str] = getattr(item, "fixturenames", [])
            is_of_fleet = "running_fleet" in asked and "running_up" not in asked
            item.add_marker(pytest.mark.xdist_group("story fleet" if is_of_fleet else "story up"))


@pytest.fixture(scope="session")
def running_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up"), "--engine", "llama", "--buffered-request-timeout", "60000")
    try:
        asyncio.run(up.ready())
        yield up
        up.process.terminate()
        up.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"up did not stop within {STOP_S} s:\n{up.log}")
    finally:
        up.end()


@pytest.fixture
async def queue(running_up: Up) -> AsyncIterator[Queue]:
    """The queue of `up`."""
    async with open_queue(running_up.redis_url) as queue:
        yield queue


@pytest.fixture
async def up(running_up: Up, queue: Queue) -> Up:
    """`paddler up` with the starter model on four slots, all of them free."""

    async def is_whole() -> bool:
        return await queue.is_empty() and await queue.num_free_slots() == SLOTS and len(running_up.pids()) == 4

    await wait_until(is_whole, timeout_s=30, poll_s=0.05, what="up is whole and idle")
    return running_up


@pytest.fixture
async def client(up: Up) -> AsyncIterator[AsyncOpenAI]:
    """The official client, for `up`."""
    async with openai_client(up.openai_url) as client:
        yield client


@pytest.fixture(scope="session")
def running_fleet(valkey: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandFleet]:
    fleet = CommandFleet(valkey.url, f"t{secrets.token_hex(4)}", tmp_path_factory.mktemp("fleet"))
    try:
        asyncio.run(fleet.start())
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(
    running_fleet: CommandFleet, valkey: RedisServer, check_leaks: Callable[[str, str], None]
) -> Iterator[CommandFleet]:
    """Balancers and a worker, and no agent yet. When all agents are gone nothing may be left in Redis for ever."""
    yield running_fleet
    print(running_fleet.log_tails())  # pytest shows it of a test that failed
    running_fleet.stop_agents()
    check_leaks(valkey.url, running_fleet.prefix)


@pytest.fixture
async def fleet_queue(fleet: CommandFleet, valkey: RedisServer) -> AsyncIterator[Queue]:
    """The queue of `fleet`."""
    async with open_queue(valkey.url, fleet.prefix) as queue:
        yield queue


@pytest.fixture
async def patient(fleet: CommandFleet) -> AsyncIterator[AsyncOpenAI]:
    """The official client, for a balancer of `fleet` that lets requests wait for a minute."""
    async with openai_client(fleet.balancer_url) as client:
        yield client


@pytest.fixture
async def impatient(fleet: CommandFleet) -> AsyncIterator[AsyncOpenAI]:
    """The official client, for a balancer of `fleet` with a buffer of two and a second of patience."""
    async with openai_client(fleet.impatient_url) as client:
        yield client
