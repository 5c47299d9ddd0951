"""The upkeep of every pool, one round at a time: reap lost agents, expire what waited too long.

Agents reap each other and balancers expire their own requests; this is the backstop that works while there
is no agent and no balancer.
"""

from __future__ import annotations

from paddler.clock import Clock
from paddler.jobs.endings import START_TIMEOUT_FRAME
from paddler.jobs.models import DEFAULT_POOL
from paddler.jobs.reaping import ReapGate, reap_agent
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store

log = get_logger(__name__)

EXPIRE_BATCH = 100


class Upkeep:
    """`run_once` every second, on one worker at a time."""

    def __init__(self, store: Store, clock: Clock, *, lease_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._gate = ReapGate(lease_ms)

    async def run_once(self) -> None:
        """Raises whatever Redis raises; nothing is half done then."""
        try:
            # The default pool takes requests before its first agent, which is who would enter it by name.
            for name in sorted({DEFAULT_POOL, *await self._store.pool_names()}):
                await self._pool_once(name)
        except TROUBLE:
            self._gate.failed()
            raise
        self._gate.answered(self._clock.monotonic())

    async def _pool_once(self, name: str) -> None:
        pool = self._store.pool(name)
        while (num_expired := await pool.expire(START_TIMEOUT_FRAME, limit=EXPIRE_BATCH)) > 0:
            log.info("expired waiting requests", pool=name, requests=num_expired)
            if num_expired < EXPIRE_BATCH:
                break
        if self._gate.is_open(self._clock.monotonic()):
            for agent_id in await pool.expired_agents():
                await reap_agent(pool, agent_id)
