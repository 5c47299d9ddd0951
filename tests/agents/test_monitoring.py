"""What an agent measures is published in its monitoring interval, what it may do with every renewal."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.issues import issue_of
from paddler.jobs.overview import Overview
from paddler.jobs.reaping import reap_agent
from paddler.store.client import Store
from paddler.testing.scripted import ScriptedEngine
from paddler.tier_stats import TierStats
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


class Remembering(ScriptedEngine):
    told: tuple[TierStats, ...] = ()

    @property
    def tiers(self) -> tuple[TierStats, ...]:
        return self.told


async def test_tiers_are_told_by_the_agent_and_counted_by_the_pool(store: Store) -> None:
    """What an agent tells goes with it, what its pool has counted stays."""
    pool, engine = store.pool("default"), Remembering(slots=1)

    async def start() -> AgentLoop:
        agent = AgentLoop(store, pool, engine, SystemClock(), name="test", snapshot={}, lease_ms=60_000)
        await agent.register()
        await agent.run_renew_once()
        return agent

    engine.told = (
        TierStats("disk", num_hits=3, num_tokens=768, saved_s=1.25, num_bytes=100),
        TierStats("tape", num_hits=1),
    )
    agent = await start()
    queue = await Overview(store).pool("default")
    assert queue.lanes[0].tiers == engine.told
    engine.told = (TierStats("disk", num_hits=4, num_misses=1, num_tokens=1024, saved_s=1.5),)
    await agent.leave(0.0)
    engine.told = (TierStats("disk", num_hits=1, num_refused=2),)
    await (await start()).leave(0.0)
    queue = await Overview(store).pool("default")
    assert queue.lanes == []
    counted = {name: number for name, number in queue.counters.items() if name.startswith("kv_")}
    assert counted == {
        "kv_disk_hits": 5,
        "kv_disk_misses": 1,
        "kv_disk_tokens": 1024,
        "kv_disk_saved_ms": 1500,
        "kv_disk_refused": 2,
    }


async def test_what_cannot_be_read_of_tiers_is_passed_over(store: Store) -> None:
    pool = store.pool("default")
    await pool.register("a", lease_ms=60_000, model="m", seen_s=1, snapshot={"slots": 1, "tiers": b'[{"tier": 5}]'})
    [lane] = (await Overview(store).pool("default")).lanes
    assert lane.tiers == ()
    newer = b'[{"tier": "disk", "hits": 2, "colour": "red"}]'
    await pool.renew("a", lease_ms=60_000, snapshot={"tiers": newer})
    [lane] = (await Overview(store).pool("default")).lanes
    assert lane.tiers == (TierStats("disk", num_hits=2),)
    await reap_agent(pool, "a", is_leaving=True)


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
