"""A fleet larger than a page is read whole, and never all of it in one go."""

from __future__ import annotations

from typing import Any

import pytest
from queue_calls import NOW

from paddler.clock import SystemClock
from paddler.jobs.fleet_view import FleetView
from paddler.jobs.overview import Overview
from paddler.model_facts import ModelFacts, encode_facts
from paddler.store.client import Store
from paddler.store.keys import SIDES
from paddler.store.paging import PAGE

pytestmark = pytest.mark.anyio

NUM_AGENTS = 2 * PAGE + 1
FACTS = ModelFacts(vocab_type=1, n_vocab=2, n_ctx=3, n_ctx_train=4, n_embd=5, n_params=6, size=7)


@pytest.fixture
async def names(store: Store) -> list[str]:
    """Agents that have been asked nothing yet, on a Redis that counts its commands from here on."""
    pool = store.pool("default")
    found = [f"agent-{number:04d}" for number in range(NUM_AGENTS)]
    for name in found:
        snapshot = {"name": name, "slots": 2, "state": "ready", "rate": 3, "abilities": "generate", "model": "m"}
        snapshot["facts"] = encode_facts(FACTS)
        await pool.register(name, lease_ms=600_000, model="m", seen_s=1, snapshot=snapshot)
    return found


class Counted:
    """A client whose pipelines note how much they ask at once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, *, transaction: bool) -> Any:
        pipe = self._client.pipeline(transaction=transaction)
        execute = pipe.execute

        async def counted() -> Any:
            self.sizes.append(len(pipe))
            return await execute()

        pipe.execute = counted
        return pipe


async def test_an_overview(store: Store, names: list[str]) -> None:
    store.redis = counted = Counted(store.redis)
    queue = await Overview(store).pool("default")
    assert [lane.name for lane in queue.lanes] == names
    assert {lane.slots for lane in queue.lanes} == {2}
    assert max(counted.sizes) <= 2 * PAGE
    await forget(store, names)


async def test_what_a_balancer_knows_of_its_agents(store: Store, names: list[str]) -> None:
    store.redis = counted = Counted(store.redis)
    view = await FleetView(store, SystemClock()).pool("default")
    assert (view.num_agents, view.slots_total, view.rate) == (NUM_AGENTS, 2 * NUM_AGENTS, 3 * NUM_AGENTS)
    assert (view.facts, view.abilities) == ({"m": FACTS}, {"generate"})
    assert set(view.backlog) == set(SIDES)
    assert max(counted.sizes) <= PAGE
    await forget(store, names)


async def forget(store: Store, names: list[str]) -> None:
    for name in names:
        await store.pool("default").reap(
            name, max_deaths=3, dead_frame=b"", cancel_frame=b"", is_leaving=True, now_ms=NOW
        )
