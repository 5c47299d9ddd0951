"""Names of models that a pool has served: known while somebody serves them, for a while after, and at zero agents."""

from __future__ import annotations

import pytest
from queue_calls import LEASE, NOW

from paddler.clock import SystemClock
from paddler.desired.schema import BalancerDesiredState, InferenceParameters
from paddler.desired.store import DesiredStates
from paddler.jobs.models import Models
from paddler.store.client import Store
from paddler.store.keys import MAX_MODELS
from paddler.store.scripts import PoolScripts, source
from workers.maintenance.upkeep import Upkeep

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


@pytest.fixture
def pool(any_store: Store) -> PoolScripts:
    return any_store.pool("default")


async def register(pool: PoolScripts, model: str, *, now: float = NOW) -> str:
    agent = f"agent-{model}-{now}"
    snapshot = {"slots": 1, "state": "ready", "model": model}
    await pool.register(agent, lease_ms=LEASE, model=model, seen_s=int(now / 1000), snapshot=snapshot, now_ms=now)
    return agent


async def upkeep(pool: PoolScripts, now: float, *names: str) -> list[str]:
    return await pool.served(names, grace_ms=HOUR_MS, seen_s=int(now / 1000), now_ms=now)


async def names(pool: PoolScripts) -> set[str]:
    """Of both keys, which have the same."""
    known = {name.decode() for name in await pool.redis.hkeys(pool.keys.models())}
    assert known == {name.decode() for name in await pool.redis.zrange(pool.keys.served(), 0, -1)}
    return known


async def leave(pool: PoolScripts, agent: str) -> None:
    await pool.reap(agent, max_deaths=3, dead_frame=b"", cancel_frame=b"", is_leaving=True)


async def test_a_name_goes_an_hour_after_the_last_agent_that_served_it(pool: PoolScripts) -> None:
    await leave(pool, await register(pool, "old"))
    new = await register(pool, "new")
    later = NOW + HOUR_MS
    await pool.renew(new, lease_ms=HOUR_MS * 9, now_ms=NOW + LEASE - 1)
    assert await upkeep(pool, later) == []
    assert await names(pool) == {"old", "new"}
    assert await upkeep(pool, later + 1) == ["old"]
    assert await names(pool) == {"new"}
    assert await upkeep(pool, later + 5 * HOUR_MS) == [], "what is served does not age"
    await leave(pool, new)


async def test_at_zero_agents_what_was_served_last_stays(pool: PoolScripts) -> None:
    """It is what clients ask for, and that brings the fleet back."""
    await leave(pool, await register(pool, "older", now=NOW))
    await leave(pool, await register(pool, "one", now=NOW + 2 * HOUR_MS))
    await leave(pool, await register(pool, "other", now=NOW + 2 * HOUR_MS + 1))
    assert await upkeep(pool, NOW + 100 * HOUR_MS) == ["older"]
    assert await upkeep(pool, NOW + 200 * HOUR_MS) == []
    assert await names(pool) == {"one", "other"}


async def test_what_the_state_gives_stays(pool: PoolScripts) -> None:
    await leave(pool, await register(pool, "given"))
    await leave(pool, await register(pool, "old"))
    assert await upkeep(pool, NOW + 9 * HOUR_MS, "given", "never served") == ["old"]
    assert await names(pool) == {"given"}


async def test_names_of_a_version_that_did_not_note_when(pool: PoolScripts) -> None:
    await pool.redis.hset(pool.keys.models(), "ancient", 1)
    new = await register(pool, "new", now=NOW)
    await pool.renew(new, lease_ms=HOUR_MS * 9, now_ms=NOW)
    assert await upkeep(pool, NOW) == []
    assert await upkeep(pool, NOW + HOUR_MS + 1) == ["ancient"], "its hour begins when it is first looked at"
    await leave(pool, new)


async def test_there_are_no_more_than_a_hundred(pool: PoolScripts) -> None:
    assert f"bound_models({MAX_MODELS})" in source("register")
    for number in range(MAX_MODELS + 5):
        await leave(pool, await register(pool, f"m{number:03}", now=NOW + number))
    assert await names(pool) == {f"m{number:03}" for number in range(5, MAX_MODELS + 5)}
    await pool.redis.hset(pool.keys.models(), mapping={f"old{number}": 1 for number in range(50)})
    dropped = await upkeep(pool, NOW)
    assert len(dropped) == 50
    assert len(await names(pool)) == MAX_MODELS


async def test_the_upkeep_of_a_worker_does_it(store: Store) -> None:
    """And `/v1/models` has them no longer."""
    clock, pool = SystemClock(), store.pool("default")
    await store.add_pool("default")
    await leave(pool, await register(pool, "old", now=NOW))
    await leave(pool, await register(pool, "given", now=NOW))
    await leave(pool, await register(pool, "last", now=clock.wall() * 1000))
    state = BalancerDesiredState(inference_parameters=InferenceParameters(model_name="given"))
    await DesiredStates(store, clock).write("default", state, expected=None, author="test")
    await Upkeep(store, clock, lease_ms=500).run_once()
    assert await names(pool) == {"given", "last"}
    assert {one.id for one in await Models(store, clock).list()} == {"default", "given", "last"}
