"""Asking one agent: the answer comes through Redis, whoever is faster."""

from __future__ import annotations

import msgspec
import pytest
from fleet_harness import Fleet

from paddler.clock import SystemClock
from paddler.jobs.enquiry import AgentAway, AgentSilent, UnknownAgent, answer, ask_agent
from paddler.store.client import Store
from paddler.store.turn_keys import question_key
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from workers.agent.control import hear
from workers.agent.standing import Standing

pytestmark = pytest.mark.anyio


async def hears(fleet: Fleet, agent_id: str) -> None:
    channel = fleet.pool.keys.control(agent_id)

    async def is_there() -> bool:
        return (await fleet.pool.redis.pubsub_numsub(channel))[0][1] > 0

    await wait_until(is_there, what="it listens")


async def test_an_agent_tells_of_its_model(fleet: Fleet) -> None:
    agent = await fleet.agent(engine=ScriptedEngine(model="tale"))
    agent_id = agent.loop.agent_id
    await hears(fleet, agent_id)
    told = msgspec.json.decode(await ask_agent(fleet.store, "default", agent_id, "model_metadata"))
    assert told == {"metadata": {"general.architecture": "scripted", "general.name": "tale"}}
    assert await ask_agent(fleet.store, "default", agent_id, "chat_template_override") == b"null"
    agent.loop._standing = Standing(SystemClock())
    agent.loop._standing.serves(1, "{{ messages }}")
    told = msgspec.json.decode(await ask_agent(fleet.store, "default", agent_id, "chat_template_override"))
    assert told == {"content": "{{ messages }}"}


async def test_nobody_is_asked_in_vain(fleet: Fleet) -> None:
    with pytest.raises(UnknownAgent):
        await ask_agent(fleet.store, "default", "agent-none", "model_metadata")
    await fleet.pool.redis.zadd(fleet.pool.keys.agents(), {"agent-deaf": 2**52})
    with pytest.raises(AgentAway):
        await ask_agent(fleet.store, "default", "agent-deaf", "model_metadata")
    hearing = hear(fleet.store, fleet.pool.keys.control("agent-deaf"))
    assert await anext(hearing) is None
    with pytest.raises(AgentSilent):
        await ask_agent(fleet.store, "default", "agent-deaf", "model_metadata", patience_s=0.2)
    await hearing.aclose()
    await fleet.pool.redis.delete(fleet.pool.keys.agents())


async def test_an_answer_that_nobody_fetches_is_forgotten(store: Store) -> None:
    pool = store.pool("default")
    await answer(pool, "question", b"{}")
    assert 0 < await store.redis.pttl(question_key(pool.keys, "question")) <= 3000
