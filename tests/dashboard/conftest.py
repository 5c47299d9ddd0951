"""One fleet for the whole folder; each test starts the agents that it watches."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator

import pytest
from dashboard_harness import WatchedFleet

from paddler.dashboard.address import Access
from paddler.testing.servers import RedisServer


@pytest.fixture(scope="session")
def running_fleet(valkey: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedFleet]:
    fleet = WatchedFleet(valkey.url, f"t{secrets.token_hex(4)}", tmp_path_factory.mktemp("watched"))
    try:
        asyncio.run(fleet.start_balancer())
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(
    running_fleet: WatchedFleet, valkey: RedisServer, check_leaks: Callable[[str, str], None]
) -> Iterator[WatchedFleet]:
    """A balancer that runs, and no agent yet."""
    yield running_fleet
    running_fleet.stop_agents()
    check_leaks(valkey.url, running_fleet.prefix)


@pytest.fixture
def access(fleet: WatchedFleet) -> Access:
    return Access(f"http://{fleet.address}")
