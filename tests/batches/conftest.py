"""A balancer, a fleet of scripted agents and a worker, in one process on the test worker's Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer, http_balancer
from openai import AsyncOpenAI

from paddler.store.client import Store


@pytest.fixture
async def balancer(store: Store) -> AsyncIterator[HttpBalancer]:
    async with http_balancer(store.url, store.prefix) as balancer:
        yield balancer


@pytest.fixture
async def client(balancer: HttpBalancer) -> AsyncIterator[AsyncOpenAI]:
    async with balancer.openai() as client:
        yield client


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()
