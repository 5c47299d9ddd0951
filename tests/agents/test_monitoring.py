"""What an agent measures is published in its monitoring interval, what it may do with every renewal."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.issues import issue_of
from paddler.jobs.overview import Overview
from paddler.store.client import Store
from paddler.testing.scripted import ScriptedEngine
from workers.agent.loop import AgentLoop

pytestmark = pytest.mark.anyio


async def test_what_is_wrong_with_an_engine_that_serves_is_told_and_taken_back(store: Store) -> None:
    engine = ScriptedEngine(slots=2)
    wrong = issue_of("UnableToFindChatTemplate", "there is none", "m.gguf", waits=True)
    engine.info = replace(engine.info, issues=(wrong,))
    agent = AgentLoop(store, store.pool("default"), engine, SystemClock(), name="test", snapshot={}, lease_ms=60_000)
    await agent.register()
    await agent.run_renew_once()
    [lane] = (await Overview(store).pool("default")).lanes
    assert (lane.state, lane.num_idle, [one.kind for one in lane.issues]) == ("ready", 2, ["UnableToFindChatTemplate"])
    engine.info = replace(engine.info, issues=())
    await agent.run_renew_once()
    [lane] = (await Overview(store).pool("default")).lanes
    assert lane.issues == ()
    await agent.leave(0.0)


async def test_measured_values_wait_for_their_interval(store: Store) -> None:
    pool = store.pool("default")
    engine = ScriptedEngine(slots=1)
    agent = AgentLoop(
        store, pool, engine, SystemClock(), name="test", snapshot={}, lease_ms=60_000, monitoring_ms=600_000
    )
    await agent.register()

    async def held() -> bytes | None:
        return await pool.redis.hget(pool.keys.agent(agent.agent_id), "held_tokens")

    await agent.run_renew_once()
    assert await held() == b"0", "at once, so that nobody waits for the first"
    await pool.redis.hset(pool.keys.agent(agent.agent_id), "held_tokens", 99)
    await agent.run_renew_once()
    assert await held() == b"99", "not with every renewal"
    await agent.register()
    await agent.run_renew_once()
    assert await held() == b"0", "under a new id it is told again"
    await agent.leave(0.0)
