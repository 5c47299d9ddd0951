"""Requests that change hands, or wait for the hands that hold their conversation."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from fleet_harness import Fleet, RunningAgent

from paddler.clock import SystemClock
from paddler.errors import AgentsLost
from paddler.jobs.gateway import Gateway, GatewaySettings, Reply
from paddler.store.client import connect
from paddler.testing.leaks import leaked_keys
from paddler.testing.script import whole
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Message
from paddler.wire.balancer import Answered, Finished, Opened, Tokens, Usage, Vectors
from tests.chaos.fleet import PREFIX, ChaosFleet

pytestmark = pytest.mark.anyio


class Heard:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.attempts: list[int] = []
        self.vectors: list[bytes] = []
        self.usage = Usage()


async def hear(reply: Reply, heard: Heard | None = None) -> Heard:
    heard = heard or Heard()
    async with reply:
        async for frame in reply:
            match frame:
                case Opened(attempt=attempt):
                    heard.attempts.append(attempt)
                case Tokens(ids=ids, text=text):
                    heard.ids += ids
                    heard.text += text
                case Finished(usage=usage):
                    heard.usage = usage
                case Vectors(vectors):
                    heard.vectors += vectors
                case Answered():
                    raise AssertionError("nothing was asked")
    return heard


def assert_uninterrupted(heard: Heard, payload: Generate) -> None:
    told = whole(payload)
    assert (tuple(heard.ids), heard.text) == (told.ids, told.text)
    assert heard.usage.completion_tokens == len(told.ids)


def story(text: str, *, tokens: int = 30) -> Generate:
    return Generate(prompt=f"{text} [[tokens={tokens}]]")


async def field(fleet: Fleet, reply: Reply, name: str) -> bytes | None:
    return await fleet.pool.redis.hget(fleet.pool.keys.request(reply.request_id), name)


async def counter(fleet: Fleet, name: str) -> int:
    return int(await fleet.pool.redis.hget(fleet.pool.keys.counters(), name) or 0)


async def test_a_preempted_request_goes_on_exactly(fleet: Fleet) -> None:
    await fleet.agent(slots=2, step_s=0.01)
    gateway = await fleet.gateway()
    payloads = [story("tight [[preempt=7]]"), story("also tight [[preempt=3]]"), story("roomy", tokens=60)]
    replies = [await gateway.submit("default", payload) for payload in payloads]
    for heard, payload in zip(await asyncio.gather(*map(hear, replies)), payloads, strict=True):
        assert_uninterrupted(heard, payload)
    assert await counter(fleet, "preempted") == 2
    assert [await field(fleet, reply, "deaths") for reply in replies] == [None] * 3, "nobody was lost"


async def test_a_stalled_agent_loses_its_request_and_is_fenced_when_it_wakes(fleet: Fleet) -> None:
    waking = threading.Event()
    payload = story("slow [[stall=60]]", tokens=80)

    def pause(seconds: float) -> None:
        if seconds > 1:
            waking.wait(seconds)

    stalled = await fleet.agent(engine=ScriptedEngine(slots=1, step_s=0.01, pause=pause), lease_ms=1000)
    gateway = await fleet.gateway()
    heard = Heard()
    pending = asyncio.create_task(hear(await gateway.submit("default", payload), heard))
    await wait_until(lambda: heard.ids)
    first_id = stalled.loop.agent_id
    await fleet.agent(slots=1, step_s=0.02, lease_ms=500)
    await wait_until(lambda: len(heard.attempts) == 2 and len(heard.ids) > 5, what="it goes on elsewhere")
    waking.set()
    await wait_until(lambda: stalled.loop.agent_id != first_id, what="it registers anew")
    await wait_until(lambda: stalled.loop.num_running == 0, what="it has dropped what was its own")
    await pending
    assert_uninterrupted(heard, payload)
    assert len(heard.attempts) == 2


SYSTEM = Message("system", "You are kind. " * 200)


def turn(*contents: str, tokens: int = 8) -> Generate:
    said = [Message(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    return Generate(messages=(SYSTEM, *said), max_tokens=tokens)


async def holding_pair(fleet: Fleet) -> list[RunningAgent]:
    return [
        await fleet.agent(engine=ScriptedEngine(slots=1, prefill_per_step=100, step_s=0.01)),
        await fleet.agent(engine=ScriptedEngine(slots=1, prefill_per_step=100, step_s=0.01)),
    ]


async def served_by(fleet: Fleet, gateway: Gateway, payload: Generate) -> tuple[str, Heard]:
    """The agent that answered, once it has published what it holds now."""
    reply = await gateway.submit("default", payload)
    heard = await hear(reply)
    assert_uninterrupted(heard, payload)
    agent_id = (await field(fleet, reply, "agent") or b"").decode()
    await wait_until(lambda: fleet.pool.redis.scard(fleet.pool.keys.held(agent_id)))
    return agent_id, heard


async def test_a_conversation_stays_where_it_is_held(fleet: Fleet) -> None:
    await holding_pair(fleet)
    gateway = await fleet.gateway()
    contents = ["hello"]
    home, heard = await served_by(fleet, gateway, turn(*contents))
    assert heard.usage.cached_tokens == 0
    for number in range(5):
        contents += [heard.text, f"and then {number}?"]
        agent_id, heard = await served_by(fleet, gateway, turn(*contents))
        assert agent_id == home
        assert heard.usage.cached_tokens > 600


async def test_a_turn_is_stolen_when_waiting_would_cost_more_than_prefill(fleet: Fleet) -> None:
    agents = await holding_pair(fleet)
    gateway = await fleet.gateway()
    home, heard = await served_by(fleet, gateway, turn("hello"))
    [other] = [agent.loop.agent_id for agent in agents if agent.loop.agent_id != home]
    await fleet.pool.redis.hset(fleet.pool.keys.agent(other), "prefill", 400)
    busy = await gateway.submit("default", turn("hello", heard.text, "a long story [[tokens=5000]]", tokens=5000))
    await wait_until(lambda: field(fleet, busy, "started"))
    assert (await field(fleet, busy, "agent") or b"").decode() == home
    payload = turn("hello", heard.text, "quick question")
    reply = await gateway.submit("default", payload)
    assert await fleet.num_waiting() == 1, "the other agent is free, and does not take it at once"
    assert_uninterrupted(await hear(reply), payload)
    assert (await field(fleet, reply, "agent") or b"").decode() == other
    assert await counter(fleet, "claimed_stolen") == 1
    accepted, delivered, tokens = [
        float(await field(fleet, reply, name) or 0) for name in ("accepted", "delivered", "tokens")
    ]
    assert delivered - accepted > 0.8 * tokens / 400 * 1000, "what the other agent would take to prefill it"
    async with busy:
        pass


@pytest.mark.timeout(120)
async def test_a_poison_request_is_given_up_and_its_neighbours_are_not(tmp_path: Path) -> None:
    """Real processes, which it kills."""
    fleet = ChaosFleet(tmp_path, appendfsync="no", agents=2, slots=4, balancers=0, step_ms=20, lease_ms=600)
    replacing = asyncio.create_task(asyncio.sleep(0))
    try:
        await asyncio.to_thread(fleet.start)
        store = connect(fleet.server.url, PREFIX)
        gateway = Gateway(store, GatewaySettings(buffered_request_timeout_ms=60_000), SystemClock())
        await gateway.start()

        async def replace() -> None:
            while True:
                await asyncio.to_thread(fleet.replace_dead)
                await asyncio.sleep(0.1)

        replacing = asyncio.create_task(replace())
        payloads = [story(f"innocent {n}", tokens=80) for n in range(6)]
        innocents = [await gateway.submit("default", payload) for payload in payloads]
        hearing = [asyncio.create_task(hear(reply)) for reply in innocents]
        keys, redis = store.pool("default").keys, store.redis
        for reply in innocents:
            await wait_until(lambda reply=reply: redis.hget(keys.request(reply.request_id), "started"), timeout_s=20)
        poison = await gateway.submit("default", story("[[die]]"))
        with pytest.raises(AgentsLost):
            await hear(poison)
        for heard, payload in zip(await asyncio.gather(*hearing), payloads, strict=True):
            assert_uninterrupted(heard, payload)
        deaths = [await redis.hget(keys.request(reply.request_id), "deaths") for reply in innocents]
        assert b"1" in deaths
        assert {number or b"0" for number in deaths} <= {b"0", b"1"}, "they died beside it once"
        assert await redis.hget(keys.request(poison.request_id), "deaths") == b"3"
        assert [fields[b"id"].decode() for _, fields in await redis.xrange(keys.dead())] == [poison.request_id]
        await gateway.close()
        await store.close()
        replacing.cancel()
        await asyncio.gather(replacing, return_exceptions=True)
        assert await asyncio.to_thread(fleet.stop_all) == []
        assert leaked_keys(fleet.server.url, PREFIX) == []
    finally:
        replacing.cancel()
        fleet.close()


async def test_a_length_read_before_the_end_is_no_loss(fleet: Fleet) -> None:
    """Found by the chaos run: frames came by pub/sub between reading the journal and mending it, the last one too."""
    await fleet.agent()
    gateway = await fleet.gateway()
    reply = await gateway.submit("default", story("short", tokens=5))
    await hear(reply)
    journal = await fleet.pool.redis.get(fleet.pool.keys.journal(reply.request_id))
    mailbox = gateway._inbox.open(reply.request_id)
    mailbox.feed(0, journal, 0.0)
    assert await gateway._inbox._mend(mailbox, b"running", len(journal) // 2)
    mailbox.feed(len(journal), journal, 0.0)
    assert not await gateway._inbox._mend(mailbox, b"running", len(journal)), "what Redis never had is lost"
