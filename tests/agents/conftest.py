"""Fleets in one process for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fleet_harness import Fleet
from following_harness import FollowingFleet

from paddler.store.client import Store
from paddler.store.desired_keys import DesiredKeys
from paddler.store.turn_keys import losses_key, turns_key

NewFleet = Callable[[str, str], Awaitable[Fleet]]


@pytest.fixture
async def new_fleet() -> AsyncIterator[NewFleet]:
    async with AsyncExitStack() as stack:
        fleets: list[Fleet] = []

        async def build(url: str, prefix: str) -> Fleet:
            fleets.append(Fleet(url, prefix, stack))
            return fleets[-1]

        yield build
        for fleet in fleets:
            await fleet.close()


@pytest.fixture
async def fleet(store: Store, new_fleet: NewFleet) -> Fleet:
    """On the worker's Valkey; the `store` fixture looks for leaked keys afterwards."""
    return await new_fleet(store.url, store.prefix)


@pytest.fixture
async def following(fleet: Fleet, tmp_path: Path) -> AsyncIterator[FollowingFleet]:
    made = FollowingFleet(fleet, tmp_path)
    yield made
    await made.close()
    keys, turn_keys = DesiredKeys(fleet.pool.keys.base), (turns_key(fleet.pool.keys), losses_key(fleet.pool.keys))
    await fleet.pool.redis.delete(keys.desired(), keys.history(), *turn_keys)
