"""The worker's upkeep: what becomes of requests when no agent and no balancer is left to look after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis
from fleet_harness import Fleet

from paddler.clock import SystemClock
from paddler.entrance import Entrance
from paddler.ids import new_request_id
from paddler.store.client import Store, connect
from paddler.store.keys import worker_key
from paddler.store.results import Submission
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, encode_payload
from workers.maintenance import main as worker_main
from workers.maintenance.main import build_worker, close_worker
from workers.maintenance.upkeep import Upkeep

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Call to deprecated close"),  # arq's own, on redis-py 5
]

CLOCK = SystemClock()


async def submit(fleet: Fleet, prompt: str, *, start_timeout_ms: int) -> str:
    """What a balancer that then dies leaves behind."""
    request_id = new_request_id("default")
    await fleet.pool.submit(
        Submission(
            request_id=request_id,
            request_class="normal",
            tenant="anonymous",
            payload=encode_payload(Generate(prompt=prompt)),
            inbox="nobody",
            start_timeout_ms=start_timeout_ms,
            max_waiting=10,
        )
    )
    return request_id


async def state(fleet: Fleet, request_id: str) -> bytes | None:
    return await fleet.store.redis.hget(fleet.pool.keys.request(request_id), "state")


async def test_what_waited_too_long_is_ended_without_its_balancer(fleet: Fleet) -> None:
    late = await submit(fleet, "late", start_timeout_ms=1)
    patient = await submit(fleet, "patient", start_timeout_ms=60_000)
    work = Upkeep(fleet.store, CLOCK, lease_ms=500)

    async def is_ended() -> bool:
        await work.run_once()
        return await state(fleet, late) == b"failed"

    await wait_until(is_ended, what="the late one is ended")
    assert await state(fleet, patient) == b"waiting"
    assert (await fleet.num_waiting(), await fleet.demand()) == (1, 1)
    await fleet.pool.cancel(patient, b"")


async def test_a_lost_agents_requests_return_when_no_agent_is_left(fleet: Fleet) -> None:
    agent = await fleet.agent(slots=1, step_s=0.05, lease_ms=500)
    lost = await submit(fleet, "in a slot [[tokens=1000]]", start_timeout_ms=60_000)
    await wait_until(lambda: agent.loop.num_running)
    await agent.kill()
    began = CLOCK.monotonic()
    work = Upkeep(fleet.store, CLOCK, lease_ms=500)

    async def is_back() -> int:
        await work.run_once()
        return await fleet.num_waiting()

    await wait_until(is_back, what="the request is in the buffer again")
    assert CLOCK.monotonic() - began >= 0.5, "whose lease may still hold is not reaped"
    assert (await state(fleet, lost), await fleet.demand()) == (b"waiting", 1)
    await fleet.pool.cancel(lost, b"")


class Counted(Upkeep):
    """Remembers when it ran."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, CLOCK, lease_ms=500)
        self.times: list[float] = []

    async def run_once(self) -> None:
        self.times.append(CLOCK.wall())
        await super().run_once()

    @property
    def seconds(self) -> set[int]:
        return set(map(int, self.times))


@asynccontextmanager
async def working(url: str, prefix: str) -> AsyncGenerator[Counted]:
    store = connect(url, prefix)
    upkeep = Counted(store)
    worker = build_worker(store, upkeep, Entrance(store, CLOCK))
    running = asyncio.create_task(worker.async_run())
    try:
        yield upkeep
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await close_worker(worker)
        await store.close()


async def test_fleets_on_one_redis_do_not_take_each_others_runs(valkey: RedisServer, prefix: str) -> None:
    """arq's job keys have no prefix: with one name for both, each second's run went to only one of them."""
    async with working(valkey.url, f"{prefix}a") as first, working(valkey.url, f"{prefix}b") as second:
        await wait_until(lambda: len(first.seconds & second.seconds) >= 2, what="both run in the same second")


async def test_of_two_workers_one_runs(valkey: RedisServer, prefix: str) -> None:
    async with working(valkey.url, prefix) as first, working(valkey.url, prefix) as second:
        await wait_until(lambda: len(first.times + second.times) >= 3)
        times = sorted(first.times + second.times)
        assert times[2] - times[0] > 1.5


async def test_the_worker_outlives_an_outage(valkey: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the chaos run: closing arq's worker without Redis raised, and the upkeep was over while its process
    lived on."""
    built: list[float] = []
    build = worker_main.build_worker

    def build_counted(*args: Any) -> Any:
        built.append(CLOCK.monotonic())
        return build(*args)

    monkeypatch.setattr(worker_main, "build_worker", build_counted)
    server = RedisServer(valkey.binary)
    server.start()
    store = connect(server.url, prefix)
    upkeep = Counted(store)
    running = asyncio.create_task(
        worker_main.worker_loop(partial(worker_main.build_worker, store, upkeep, Entrance(store, CLOCK)), CLOCK)
    )
    try:
        await wait_until(lambda: upkeep.times)
        server.kill()
        num_built = len(built)
        await wait_until(lambda: len(built) >= num_built + 2 or running.done(), what="it tries again without Redis")
        num_runs = len(upkeep.times)
        await asyncio.to_thread(server.start)
        await wait_until(lambda: len(upkeep.times) > num_runs, what="it works again")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
        server.close()


async def test_a_round_under_way_does_not_end_the_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble ends the worker's polling while arq still records a job: closing it raised that one's cancellation."""
    upkeep = Counted(store)
    build = worker_main.build_worker

    def build_troubled(*args: Any) -> Any:
        worker = build(*args)
        poll, num_runs = worker._poll_iteration, len(upkeep.times)

        async def troubled() -> None:
            await poll()
            if len(upkeep.times) > num_runs:
                worker.tasks["being recorded"] = asyncio.create_task(asyncio.Event().wait())
                raise redis.ConnectionError("cut by the test")

        worker._poll_iteration = troubled
        return worker

    monkeypatch.setattr(worker_main, "build_worker", build_troubled)
    running = asyncio.create_task(
        worker_main.worker_loop(partial(worker_main.build_worker, store, upkeep, Entrance(store, CLOCK)), CLOCK)
    )
    try:
        await wait_until(lambda: len(upkeep.times) >= 2 or running.done())
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_broken_pool_does_not_stop_the_others(fleet: Fleet) -> None:
    """Found in review: the round ended with what Redis refused for one pool, and so did every round after it."""
    await fleet.store.add_pool("broken")
    broken = fleet.store.pool("broken").keys
    assert broken.pool < "default", "it has its turn first"
    for key in (broken.deadlines(), broken.agents(), broken.demand(), broken.dead(), broken.balancers()):
        await fleet.store.redis.set(key, "by hand", ex=600)
    late = await submit(fleet, "late", start_timeout_ms=1)
    work = Upkeep(fleet.store, CLOCK, lease_ms=500)

    async def is_ended() -> bool:
        await work.run_once()
        return await state(fleet, late) == b"failed"

    await wait_until(is_ended, timeout_s=10, what="the late one is ended")
    assert await fleet.store.redis.exists(worker_key(fleet.store.prefix)), "the worker gives its sign of life"
