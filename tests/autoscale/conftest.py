"""A pool with an autoscaler of a test's own, and somebody who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from autoscale_harness import Scaled, scaled_pool
from fleet_harness import Fleet

from paddler.jobs.gateway import Gateway
from paddler.store.client import Store


@pytest.fixture
async def scaled(store: Store, tmp_path: Path) -> AsyncIterator[Scaled]:
    async with scaled_pool(store, tmp_path) as scaled:
        yield scaled


@pytest.fixture
async def gateway(store: Store) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield await fleet.gateway(buffered_request_timeout_ms=60_000)
        await stack.aclose()
        await fleet.close()
