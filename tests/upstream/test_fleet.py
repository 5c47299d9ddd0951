"""Streams of other servers go through the queue like any other: journal, fence, hand-over, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fake_upstream import FakeUpstream, always, breaking_off, for_ever, in_turn, telling
from fleet_harness import Fleet
from http_harness import http_balancer

from paddler.clock import SystemClock
from paddler.engine import Embedded
from paddler.errors import EngineFailed, InvalidField, UpstreamFailed
from paddler.jobs.gateway import Reply
from paddler.store.client import Store
from paddler.testing.leaks import leaked_keys
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Embed, Generate, Message, Sampling
from paddler.wire.balancer import Finished, FinishReason, Opened, Tokens, Usage, encode_frame
from workers.agent.running import Running
from workers.agent.upstream.engine import UpstreamEngine
from workers.agent.upstream.settings import UpstreamSettings

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
PATIENCE: dict[str, Any] = {"buffered_request_timeout_ms": 60_000}


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


async def fronting(url: str, **settings: Any) -> UpstreamEngine:
    """Asked from a thread: the server may live in this event loop."""
    known: dict[str, Any] = {"url": url, "interval_s": 0.2, "timeout_s": 30.0}
    return await asyncio.to_thread(UpstreamEngine, UpstreamSettings(**known | settings), SystemClock())


class Heard:
    def __init__(self) -> None:
        self.text = ""
        self.attempts: list[int] = []
        self.usage = Usage()
        self.reason: FinishReason | None = None


async def hear(reply: Reply, heard: Heard | None = None) -> Heard:
    heard = heard or Heard()
    async with reply:
        async for frame in reply:
            match frame:
                case Opened(attempt=attempt):
                    heard.attempts.append(attempt)
                case Tokens(text=text):
                    heard.text += text
                case Finished(reason=reason, usage=usage):
                    heard.reason, heard.usage = reason, usage
                case _:
                    pass
    return heard


def chat(text: str = "hi", **fields: Any) -> Generate:
    return Generate(messages=(Message("user", text),), **fields)


async def deaths(fleet: Fleet, reply: Reply) -> bytes | None:
    return await fleet.pool.redis.hget(fleet.pool.keys.request(reply.request_id), "deaths")


async def slots_in_redis(fleet: Fleet) -> list[bytes | None]:
    keys, redis = fleet.pool.keys, fleet.pool.redis
    return [await redis.hget(keys.agent(agent.decode()), "slots") for agent in await redis.zrange(keys.agents(), 0, -1)]


async def test_a_stream_comes_through_the_queue(fleet: Fleet, server: FakeUpstream) -> None:
    server.routes[CHAT] = telling("he", "llo")
    await fleet.agent(engine=await fronting(server.url))
    gateway = await fleet.gateway()
    heard = await hear(await gateway.submit("default", chat()))
    assert (heard.text, heard.attempts, heard.reason) == ("hello", [1], FinishReason.STOP)
    assert heard.usage == Usage(7, 2)


async def test_what_fails_before_its_first_token_is_done_by_another_agent(fleet: Fleet) -> None:
    """The server of the first agent is gone, and only its request notices: it costs a detour and no death."""
    with FakeUpstream() as gone, FakeUpstream() as there:
        there.routes[CHAT] = telling("fine")
        await fleet.agent(engine=await fronting(gone.url, interval_s=600.0))
        gone.stop()
        gateway = await fleet.gateway(**PATIENCE)
        reply = await gateway.submit("default", chat())
        await wait_until(lambda: fleet.num_waiting(), what="it is back in the buffer")
        assert b"0" in await slots_in_redis(fleet)
        await fleet.agent(engine=await fronting(there.url))
        heard = await hear(reply)
        assert heard.text == "fine"
        assert await deaths(fleet, reply) is None
        await fleet.close()


async def test_with_no_other_agent_it_waits_until_its_server_is_back(fleet: Fleet, server: FakeUpstream) -> None:
    server.routes[CHAT] = telling("fine")
    await fleet.agent(engine=await fronting(server.url, interval_s=600.0))
    server.stop()
    gateway = await fleet.gateway(**PATIENCE)
    reply = await gateway.submit("default", chat())
    await wait_until(lambda: fleet.num_waiting(), what="it is back in the buffer")
    server.start()
    assert (await hear(reply)).text == "fine"
    await wait_until(lambda: slots_are(fleet, b"2"), what="its slots are offered again")


async def test_it_waits_no_longer_than_any_other(fleet: Fleet, server: FakeUpstream) -> None:
    """It had begun, so its start was no longer due; when it goes back with nothing, it is due again."""
    await fleet.agent(engine=await fronting(server.url, interval_s=600.0))
    server.stop()
    gateway = await fleet.gateway(buffered_request_timeout_ms=60_000)
    async with await gateway.submit("default", chat()) as reply:
        await wait_until(lambda: fleet.num_waiting(), what="it is back in the buffer")
        keys, redis = fleet.pool.keys, fleet.pool.redis
        due = float(await redis.hget(keys.request(reply.request_id), "due"))
        assert await redis.zscore(keys.deadlines(), reply.request_id) == due


async def slots_are(fleet: Fleet, *slots: bytes) -> bool:
    return await slots_in_redis(fleet) == list(slots)


async def test_a_full_server_is_left_alone_for_as_long_as_it_asks(fleet: Fleet, server: FakeUpstream) -> None:
    server.routes[CHAT] = in_turn([always({"error": "later"}, 429, retry_after="1"), telling("fine")])
    await fleet.agent(engine=await fronting(server.url))
    gateway = await fleet.gateway(**PATIENCE)
    heard = await hear(await gateway.submit("default", chat()))
    assert (heard.text, len(server.generated())) == ("fine", 2)


async def test_a_leaving_agent_hands_its_stream_over_in_the_middle(fleet: Fleet) -> None:
    with FakeUpstream() as first, FakeUpstream() as second:
        first.routes[CHAT] = for_ever("one ", "two ")
        second.routes["/v1/completions"] = telling("three")
        leaving = await fleet.agent(engine=await fronting(first.url))
        gateway = await fleet.gateway(**PATIENCE)
        heard = Heard()
        reply = await gateway.submit("default", chat())
        hearing = asyncio.create_task(hear(reply, heard))
        await wait_until(lambda: heard.text == "one two ", what="it is in the middle")
        await fleet.agent(engine=await fronting(second.url))
        await leaving.leave()
        await hearing
        assert (heard.text, len(heard.attempts)) == ("one two three", 2)
        assert heard.usage.completion_tokens == 3
        [asked] = first.generated()
        await wait_until(lambda: asked.is_left, what="its server is told")
        assert second.generated()[0].body["prompt"] == "<user>hi<assistant>one two "
        assert await deaths(fleet, reply) is None
        await fleet.close()


async def test_an_engine_with_a_vocabulary_goes_on_from_the_text(fleet: Fleet, server: FakeUpstream) -> None:
    server.routes[CHAT] = for_ever("one ", "two ")
    leaving = await fleet.agent(engine=await fronting(server.url))
    gateway = await fleet.gateway(**PATIENCE)
    heard = Heard()
    hearing = asyncio.create_task(hear(await gateway.submit("default", chat("[[say=one two three]]")), heard))
    await wait_until(lambda: heard.text == "one two ", what="it is in the middle")
    await fleet.agent(engine=ScriptedEngine(slots=1, vocabulary="of its own"))
    await leaving.leave()
    await hearing
    assert (heard.text, heard.reason, len(heard.attempts)) == ("one two three", FinishReason.STOP, 2)


async def test_a_server_goes_on_with_what_an_engine_with_a_vocabulary_has_said(
    fleet: Fleet, server: FakeUpstream
) -> None:
    server.routes["/v1/completions"] = telling("the end")
    leaving = await fleet.agent(engine=ScriptedEngine(slots=1, step_s=0.05, vocabulary="of its own"))
    gateway = await fleet.gateway(**PATIENCE)
    heard = Heard()
    reply = await gateway.submit("default", chat("[[tokens=400]]", max_tokens=400))
    hearing = asyncio.create_task(hear(reply, heard))
    await wait_until(lambda: len(heard.text.split()) > 2, what="it is in the middle")
    await leaving.leave()
    await fleet.agent(engine=await fronting(server.url))
    await hearing
    [asked] = server.generated()
    begun = asked.body["prompt"].partition("<assistant>")[2]
    assert (heard.text, len(heard.attempts)) == (f"{begun}the end", 2)
    assert asked.body["max_tokens"] == 400 - len(begun.split())


async def test_vectors_of_a_server_and_of_a_model_are_not_put_together(fleet: Fleet, server: FakeUpstream) -> None:
    engine = await fronting(server.url)
    begun = Running("r", 1, encode_frame(Opened("front", 1, engine.info.vocabulary, engine.info.weights)))
    begun.take_event(Embedded("r", (b"\0" * 8,), (3,)))
    emission = begun.emission()
    assert emission is not None
    journal = encode_frame(Opened("front", 1, engine.info.vocabulary, engine.info.weights)) + emission.frames
    with pytest.raises(EngineFailed, match="vectors of two models"):
        Running("r", 2, journal).job(Embed(inputs=("a", "b")), vocabulary="v", weights="w")
    same = await fronting(server.url)
    assert Running("r", 2, journal).job(Embed(inputs=("a", "b")), weights=same.info.weights).embedded == (3,)
    for one in (engine, same):
        one.close()


async def test_a_client_that_leaves_frees_the_servers_slot(fleet: Fleet, server: FakeUpstream) -> None:
    server.routes[CHAT] = for_ever("one")
    await fleet.agent(engine=await fronting(server.url))
    gateway = await fleet.gateway()
    async with await gateway.submit("default", chat()) as reply:
        async for frame in reply:
            if isinstance(frame, Tokens):
                break
    [asked] = server.generated()
    await wait_until(lambda: asked.is_left, what="the connection is closed")
    await wait_until(fleet.is_idle, what="the request has ended")


async def test_slots_that_others_use_are_left_to_them(fleet: Fleet, server: FakeUpstream) -> None:
    await fleet.agent(engine=await fronting(server.url))
    server.num_busy = 1
    await wait_until(lambda: slots_are(fleet, b"1"), what="one slot is offered")


async def test_what_breaks_every_time_ends_with_a_clear_error(fleet: Fleet, server: FakeUpstream) -> None:
    server.routes[CHAT] = breaking_off()
    await fleet.agent(engine=await fronting(server.url))
    gateway = await fleet.gateway()
    with pytest.raises(UpstreamFailed, match="send the request again"):
        await hear(await gateway.submit("default", chat()))
    assert len(server.generated()) == 2


@pytest.fixture
async def inner(valkey: RedisServer, prefix: str, check_leaks: Callable[[str, str], None]) -> AsyncIterator[str]:
    """The URL of another Paddler, with a fleet of its own: a real server of OpenAI's protocol."""
    name = f"{prefix}inner"
    async with AsyncExitStack() as stack:
        fleet = Fleet(valkey.url, name, stack)
        async with http_balancer(valkey.url, name) as balancer:
            await fleet.agent(engine=ScriptedEngine(slots=4, step_s=0.005))
            yield balancer.url()
        await fleet.close()
    assert leaked_keys(valkey.url, name) == []
    check_leaks(valkey.url, name)


async def test_a_paddler_behind_a_paddler(fleet: Fleet, inner: str) -> None:
    """All of its words are known, so all that is asked goes through; what it is told of is told here."""
    agent = await fleet.agent(engine=await fronting(inner, slots=2, model="default"))
    assert agent.loop.engine.engine.info.abilities == ("generate", "embed", "rerank")
    gateway = await fleet.gateway()
    heard = await hear(await gateway.submit("default", chat("say [[say=<think>hm</think>Hello there.]]")))
    assert heard.text.endswith("Hello there.")
    sampling = Sampling(top_k=3, mirostat=1, penalty_repeat=1.3, seed=4)
    heard = await hear(await gateway.submit("default", chat("[[tokens=9]]", sampling=sampling, max_tokens=5)))
    assert (heard.usage.completion_tokens, heard.reason) == (5, FinishReason.LENGTH)
    with pytest.raises(InvalidField, match="prompt"):
        await hear(await gateway.submit("default", Generate(prompt="")))


async def test_a_chat_goes_on_behind_another_paddler(fleet: Fleet, inner: str) -> None:
    """The prompt is rendered there, and what is out already stands behind it."""
    first = await fleet.agent(engine=await fronting(inner, slots=1, model="default"))
    gateway = await fleet.gateway(**PATIENCE)
    heard = Heard()
    reply = await gateway.submit("default", chat("[[tokens=400]]", max_tokens=400))
    hearing = asyncio.create_task(hear(reply, heard))
    await wait_until(lambda: len(heard.text) > 20, what="it is in the middle")
    await first.leave()
    before = heard.text
    await fleet.agent(engine=await fronting(inner, slots=1, model="default"))
    await hearing
    assert heard.text.startswith(before)
    assert len(heard.attempts) == 2
    assert heard.usage.completion_tokens == 400
    assert len(heard.text) > 2 * len(before)
