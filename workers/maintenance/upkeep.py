"""The upkeep of every pool, one round at a time: reap lost agents, expire what waited too long, cancel what nobody
follows, trim, audit, and leave a sign of life.

Agents reap each other and balancers expire their own requests; this is the backstop that works while there
is no agent and no balancer.
"""

from __future__ import annotations

import contextlib

import msgspec

from paddler.clock import Clock
from paddler.desired.store import DesiredStates
from paddler.jobs.endings import CANCELLED_FRAME, START_TIMEOUT_FRAME
from paddler.jobs.models import DEFAULT_POOL
from paddler.jobs.reaping import ReapGate, reap_agent
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store, is_refusal
from paddler.store.keys import WORKER_BEAT_MS, inbox_channel, worker_key
from paddler.store.scripts import PoolScripts
from workers.maintenance.audit import Auditor
from workers.maintenance.isolation import only_this_pool

log = get_logger(__name__)

EXPIRE_BATCH = 100
ORPHAN_PAGE = 500
AUDIT_EVERY_S = 5.0
MAX_DEAD = 1000
BALANCER_FORGOTTEN_MS = 600_000
NAME_GRACE_MS = 3_600_000
"""A model that comes back within it, after a swap or a crash, is known all the time."""


class Upkeep:
    """`run_once` every second, on one worker at a time."""

    def __init__(self, store: Store, clock: Clock, *, lease_ms: int, orphan_grace_ms: int = 30_000) -> None:
        self._store = store
        self._clock = clock
        self._gate = ReapGate(lease_ms)
        self._orphan_grace_ms = orphan_grace_ms
        self._auditor = Auditor(store)
        self._states = DesiredStates(store, clock)
        self._next_audit = 0.0
        self._looked_at: dict[str, str] = {}

    async def run_once(self) -> None:
        """Raises whatever Redis raises; nothing is half done then. What is wrong with one pool concerns no other."""
        try:
            # The default pool takes requests before its first agent, which is who would enter it by name.
            names = sorted({DEFAULT_POOL, *await self._store.pool_names()})
            for name in names:
                with only_this_pool(name):
                    await self._pool_once(name)
            await self._rarely(names)
            seconds, micros = await self._store.redis.time()
            await self._store.redis.set(
                worker_key(self._store.prefix), seconds * 1000 + micros // 1000, px=WORKER_BEAT_MS
            )
        except TROUBLE as error:
            # A refusal (Redis is full, say) is an answer: agents renew there.
            if not is_refusal(error):
                self._gate.failed()
            raise
        self._gate.answered(self._clock.monotonic())

    async def _pool_once(self, name: str) -> None:
        pool = self._store.pool(name)
        while (num_expired := await pool.expire(START_TIMEOUT_FRAME, limit=EXPIRE_BATCH)) > 0:
            log.info("expired waiting requests", pool=name, requests=num_expired)
            if num_expired < EXPIRE_BATCH:
                break
        # After an outage balancers, too, need a moment to renew what they could not.
        if self._gate.is_open(self._clock.monotonic()):
            for agent_id in await pool.expired_agents():
                await reap_agent(pool, agent_id)
            for ledger in (pool.keys.demand(), pool.keys.demand_batch()):
                await self._cancel_orphans(pool, ledger)

    async def _names_once(self, name: str) -> None:
        """Forget names of models that nobody serves any more: clients would be let in under them for ever."""
        given = None
        with contextlib.suppress(msgspec.MsgspecError):  # one of a newer version; agents follow it no further, either
            given = (await self._states.read(name)).state.inference_parameters.model_name
        seen_s = int(self._clock.wall())
        dropped = await self._store.pool(name).served([given] if given else [], grace_ms=NAME_GRACE_MS, seen_s=seen_s)
        for model in dropped:
            log.info("forgot the name of a model that is not served any more", pool=name, model=model)

    async def _cancel_orphans(self, pool: PoolScripts, ledger: str) -> None:
        """The next page of the ledger; a long one takes several rounds."""
        after = self._looked_at.get(ledger)
        page = await self._store.redis.xrange(ledger, f"({after}" if after else "-", "+", count=ORPHAN_PAGE)
        self._looked_at[ledger] = page[-1][0].decode() if len(page) == ORPHAN_PAGE else ""
        orphans = await pool.orphan(
            [fields[b"id"].decode() for _, fields in page if b"id" in fields],
            grace_ms=self._orphan_grace_ms,
            inbox_prefix=inbox_channel(self._store.prefix, ""),
        )
        for request_id in orphans:
            outcome = await pool.cancel(request_id, CANCELLED_FRAME)
            log.info("cancelled a request that nobody follows", request=request_id, outcome=outcome)

    async def _rarely(self, names: list[str]) -> None:
        now = self._clock.monotonic()
        if now < self._next_audit:
            return
        self._next_audit = now + AUDIT_EVERY_S
        await self._auditor.run_once(names)
        seconds, _ = await self._store.redis.time()
        for name in names:
            keys = self._store.pool(name).keys
            with only_this_pool(name):
                await self._names_once(name)
                await self._store.redis.xtrim(keys.dead(), maxlen=MAX_DEAD, approximate=False)
                forgotten = seconds * 1000 - BALANCER_FORGOTTEN_MS
                await self._store.redis.zremrangebyscore(keys.balancers(), "-inf", forgotten)
