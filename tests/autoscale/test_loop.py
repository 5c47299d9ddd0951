"""An autoscaler's loop in this process, on a real Valkey, with commands of a shell: what it does with its lease."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paddler.autoscale.loop import Autoscaler
from paddler.autoscale.policy import Policy
from paddler.autoscale.scaler import Scaler
from paddler.autoscale.shell import ShellDriver
from paddler.clock import SystemClock
from paddler.jobs.gateway import Gateway
from paddler.jobs.models import Models
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CLOCK = SystemClock()
NEVER_S = 3600.0


def autoscaler_of(store: Store, start: str, stop: str = "true", *, pool: str = "default") -> Autoscaler:
    """One agent at most, of one slot; the poll never comes."""
    driver = ShellDriver(start, stop, os.environ, CLOCK, timeout_s=20, retries=0)
    scaler = Scaler(Policy(least=0, most=1, slots=1), "auto", ends_with_us=False)
    return Autoscaler(store, CLOCK, scaler, driver, pool=pool, driver_name="exec", poll_s=NEVER_S)


@asynccontextmanager
async def running(autoscaler: Autoscaler) -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(autoscaler.run())
    try:
        yield task
    finally:
        if not task.done():
            autoscaler.stop()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_request_to_a_pool_that_never_had_an_agent_starts_the_first(
    store: Store, gateway: Gateway, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    async with running(autoscaler_of(store, f"touch {called}", pool="chat")):

        async def is_known() -> bool:
            return "chat" in await store.pool_names()

        await wait_until(is_known, what="the autoscaler has told of its pool")
        pool = await Models(store, CLOCK).resolve("chat")
        async with await gateway.submit(pool, Generate(prompt="[[tokens=1]]")):
            await wait_until(called.exists, what="an agent is started")
