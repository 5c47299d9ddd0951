"""An autoscaler's loop in this process, on a real Valkey, with commands of a shell: what it does with its lease."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paddler.autoscale.loop import Autoscaler
from paddler.autoscale.policy import Policy
from paddler.autoscale.record import Record, Records
from paddler.autoscale.scaler import Scaler
from paddler.autoscale.shell import ShellDriver
from paddler.clock import SystemClock
from paddler.entrance import Incompatible
from paddler.jobs.gateway import Gateway
from paddler.jobs.models import Models
from paddler.metrics.lease import Lease
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CLOCK = SystemClock()
NEVER_S = 3600.0


def autoscaler_of(
    store: Store, start: str, stop: str = "true", *, pool: str = "default", environment: dict[str, str] | None = None
) -> Autoscaler:
    """One agent at most, of one slot; the poll never comes."""
    driver = ShellDriver(start, stop, environment or os.environ, CLOCK, timeout_s=20, retries=0)
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


async def test_what_one_was_starting_when_it_ended_the_next_one_starts(
    store: Store, gateway: Gateway, tmp_path: Path
) -> None:
    """The command ends with its autoscaler, and has started nothing yet."""
    calls = tmp_path / "calls"
    start = f'echo "$PADDLER_NAME" >>{calls}; [ $(wc -l <{calls}) -gt 1 ] || exec sleep 1000'
    async with await gateway.submit("default", Generate(prompt="[[tokens=1]]")):
        async with running(autoscaler_of(store, start)):
            await wait_until(calls.exists, what="the first one starts it")
        async with running(autoscaler_of(store, start)):
            await wait_until(lambda: calls.read_text() == "auto-1\n" * 2, what="the second one does")


async def test_a_driver_that_breaks_is_told_and_called_again(store: Store, gateway: Gateway, tmp_path: Path) -> None:
    """What no driver foresees, as too many open files: here a variable that no command can have."""
    autoscaler = autoscaler_of(store, "true", environment={"X": "a\0b"})
    async with running(autoscaler), await gateway.submit("default", Generate(prompt="[[tokens=1]]")):

        async def has_failed() -> Record | None:
            record = await autoscaler.records.read()
            return record if record is not None and record.failures > 1 else None

        record = await wait_until(has_failed, what="it has failed twice")
        assert "auto-1 could not be started: ValueError: embedded null byte" in record.trouble


async def test_one_that_stood_by_through_an_upgrade_is_refused(store: Store) -> None:
    """It was let in, as anybody was then, and acts for the pool only now."""
    autoscaler = autoscaler_of(store, "true")
    await store.redis.set(autoscaler.records.lease_key, "autoscale-other", px=60_000)
    format_key = store.pool("default").keys.format()
    async with running(autoscaler) as task:
        await store.redis.hset(format_key, mapping={"number": 9, "oldest": 8, "version": "9.0"})
        await store.redis.delete(autoscaler.records.lease_key)
        await asyncio.wait({task}, timeout=30)
        with pytest.raises(Incompatible, match="beside which none below 8 may work"):
            task.result()
    assert await autoscaler.records.holder() == "", "one of another version may act at once"
    await store.redis.delete(format_key)


async def test_who_loses_the_lease_while_the_record_waits_does_not_act(
    store: Store, gateway: Gateway, tmp_path: Path
) -> None:
    """By its own clock it holds it still: Redis has given it to another one. That is fenced, and nothing is started."""
    called = tmp_path / "called"
    autoscaler = autoscaler_of(store, f"touch {called}")
    lease = Stolen(store, CLOCK, autoscaler.records.lease_key, autoscaler.who)
    autoscaler.lease = lease
    async with running(autoscaler), await gateway.submit("default", Generate(prompt="[[tokens=1]]")):
        await wait_until(lambda: autoscaler.num_looks >= 3, what="it has looked again and again")
        assert not called.exists()
        assert await autoscaler.records.read() is None
        lease.is_stolen = False
        await wait_until(called.exists, what="it has the lease")
        told = json.loads(await store.redis.get(f"{store.pool('default').keys.base}:autoscale"))
        assert told["who"] == autoscaler.who


async def test_who_has_written_for_longer_than_its_lease_does_not_act(
    store: Store, gateway: Gateway, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    autoscaler = autoscaler_of(store, f"touch {called}")
    lease = autoscaler.lease = Lapsing(store, CLOCK, autoscaler.records.lease_key, autoscaler.who)

    class Slow(Records):
        has_lapsed = 0

        async def write(self, record: Record) -> bool:
            lease.has_lapsed = await super().write(record) and any(record.instances)
            self.has_lapsed += lease.has_lapsed
            return True

    records = autoscaler.records = Slow(store, "default")
    async with running(autoscaler), await gateway.submit("default", Generate(prompt="[[tokens=1]]")):
        await wait_until(lambda: records.has_lapsed >= 2, what="it has decided to start an agent, twice")
        assert not called.exists()


class Lapsing(Lease):
    has_lapsed = False

    @property
    def is_held(self) -> bool:
        return not self.has_lapsed and super().is_held

    async def run_once(self) -> None:
        await super().run_once()
        self.has_lapsed = False


class Stolen(Lease):
    """Redis gives it to somebody else right after it was ours."""

    is_stolen = True

    async def run_once(self) -> None:
        await self._store.redis.delete(self._key)
        await super().run_once()
        if self.is_stolen:
            await self._store.redis.set(self._key, "autoscale-other", px=60_000)
