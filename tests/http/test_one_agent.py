"""What the official client of Paddler 4 asks a single agent, and what it is told when there is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fleet_harness import RunningAgent
from http_harness import HttpBalancer, NewAgent
from native_harness import management
from paddler_client import ClientManagement
from paddler_client.error import HttpError
from queue_calls import leave

from paddler.clock import SystemClock
from paddler.store.client import Store, connect
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from workers.agent.control import hear
from workers.agent.standing import Standing

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(balancer: HttpBalancer) -> AsyncIterator[ClientManagement]:
    async with management(balancer.url("management")) as client:
        yield client


@pytest.fixture
async def running(store: Store) -> AsyncIterator[RunningAgent]:
    agent = RunningAgent(connect(store.url, store.prefix), ScriptedEngine(model="tale"), 5000)
    await agent.start()
    channel = store.pool("default").keys.control(agent.loop.agent_id)

    async def hears() -> bool:
        return (await store.redis.pubsub_numsub(channel))[0][1] > 0

    await wait_until(hears, what="it listens")
    yield agent
    await agent.leave()


async def test_metadata_and_template(client: ClientManagement, running: RunningAgent) -> None:
    agent_id = running.loop.agent_id
    metadata = await client.get_model_metadata(agent_id)
    assert metadata is not None
    assert metadata.metadata == {"general.architecture": "scripted", "general.name": "tale"}
    assert await client.get_chat_template_override(agent_id) is None
    running.loop._standing = Standing(SystemClock())
    running.loop._standing.serves(1, "{{ messages }}")
    template = await client.get_chat_template_override(agent_id)
    assert template is not None
    assert template.content == "{{ messages }}"


async def test_an_agent_that_is_not_there_is_404(client: ClientManagement) -> None:
    for call in (client.get_model_metadata("agent-none"), client.get_chat_template_override("agent-none")):
        with pytest.raises(HttpError, match="No agent has the id agent-none") as unknown:
            await call
        assert unknown.value.status_code == 404


async def test_one_that_hears_nothing_is_502_and_one_that_says_nothing_504(
    client: ClientManagement, new_agent: NewAgent, store: Store
) -> None:
    agent = await new_agent()
    with pytest.raises(HttpError, match="hears nothing") as deaf:
        await client.get_model_metadata(agent.agent_id)
    assert deaf.value.status_code == 502
    hearing = hear(store, store.pool("default").keys.control(agent.agent_id))
    listening = asyncio.ensure_future(anext(hearing))
    channel = store.pool("default").keys.control(agent.agent_id)

    async def hears() -> bool:
        return (await store.redis.pubsub_numsub(channel))[0][1] > 0

    await wait_until(hears)
    with pytest.raises(HttpError, match="within 3 s") as dumb:
        await client.get_model_metadata(agent.agent_id)
    assert dumb.value.status_code == 504
    await listening
    await hearing.aclose()


async def test_an_agent_is_asked_in_whatever_pool_it_is(client: ClientManagement, store: Store) -> None:
    """An id does not tell."""
    await store.add_pool("chat")
    pool = store.pool("chat")
    snapshot = {"slots": 1, "state": "ready", "name": "far"}
    await pool.register("agent-far", lease_ms=3_600_000, model="m", seen_s=1, snapshot=snapshot)
    with pytest.raises(HttpError, match="hears nothing") as deaf:
        await client.get_model_metadata("agent-far")
    assert deaf.value.status_code == 502
    await leave(pool, "agent-far")
