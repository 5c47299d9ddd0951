"""A balancer with scripted agents, and servers that say what a test likes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from fake_upstream import FakeUpstream
from fleet_harness import Fleet
from http_harness import HttpBalancer, http_balancer

from paddler.store.client import Store


@pytest.fixture
async def balancer(store: Store) -> AsyncIterator[HttpBalancer]:
    async with http_balancer(store.url, store.prefix) as balancer:
        yield balancer


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
def server() -> Iterator[FakeUpstream]:
    with FakeUpstream() as server:
        yield server
