"""What an operator may tell an agent: take no more requests, take them again, end (life of a request, step 11)."""

from __future__ import annotations

from paddler.jobs.models import DEFAULT_POOL
from paddler.jobs.reaping import reap_agent
from paddler.store.client import Store
from paddler.store.results import Order, Ordered


class AgentOrders:
    """Every call raises what Redis raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pool_of(self, agent_id: str) -> str | None:
        """The pool that an agent is in; an id does not tell."""
        names = sorted({DEFAULT_POOL, *await self._store.pool_names()})
        pipe = self._store.redis.pipeline(transaction=False)
        for name in names:
            pipe.zscore(self._store.pool(name).keys.agents(), agent_id)
        found = zip(names, await pipe.execute(), strict=True)
        return next((name for name, score in found if score is not None), None)

    async def tell(self, pool: str, agent_id: str, order: Order, *, is_forced: bool = False) -> Ordered | None:
        """None: the pool has no such agent (any more).

        `is_forced`, with `REMOVE`: what runs is handed over now, no death counted, and the agent is forgotten, whether
        it hears of it or not. Its process ends as soon as it does, and cannot register again."""
        scripts = self._store.pool(pool)
        ordered = await scripts.order(agent_id, order)
        if ordered is not None and is_forced and order is Order.REMOVE:
            await reap_agent(scripts, agent_id, is_leaving=True)
            return Ordered(True)
        return ordered
