"""An agent's place in its pool: registration, the lease, and leaving (life of a request, steps 10 and 11)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from paddler import __version__
from paddler.clock import Clock
from paddler.entrance import Incompatible, check
from paddler.ids import new_process_id
from paddler.issues import encode_issues, issue_of
from paddler.jobs.reaping import ReapGate, reap_agent
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store
from paddler.store.format import FORMAT, OLDEST_FORMAT
from paddler.store.pipe import Value
from paddler.store.results import Order, Reaped
from paddler.store.scripts import PoolScripts
from paddler.store.tally import Tally

log = get_logger(__name__)

SHUT_OUT = -2


class Membership:
    """`agent_id` is new with every registration, so that whoever lost its lease can never pass for its old self.

    `snapshot` may have a `state` of its own; the agent takes requests in `ready` alone. `on_hint` is told after how
    many ms something that waits may be stolen; `on_removed` that an operator wants the process to end.

    While its format may not work in the pool (`paddler.entrance`) the agent stands aside: it is there, with an issue
    and without a lane, and every renewal tries to register again."""

    def __init__(
        self,
        store: Store,
        pool: PoolScripts,
        clock: Clock,
        *,
        lease_ms: int,
        model: str,
        snapshot: Mapping[str, Value],
    ) -> None:
        self.agent_id = ""
        self.lease_ms = lease_ms
        self._store = store
        self._pool = pool
        self._clock = clock
        self._model = model
        told = {"model": model, "lease_ms": lease_ms, "format": FORMAT, "oldest_format": OLDEST_FORMAT}
        self._snapshot: dict[str, Value] = {"state": "ready", **snapshot, **told}
        self._gate = ReapGate(lease_ms)
        self._is_leaving = False
        self._refusal: Incompatible | None = None
        self._changing = asyncio.Lock()
        self.handed_over = 0, 0.0
        """By leaving: how many requests, and when by the monotonic clock."""
        self.tally = Tally(store)
        self.on_hint: Callable[[int], None] = lambda _steal_after_ms: None
        self.on_removed: Callable[[], None] = lambda: None

    @property
    def lane_key(self) -> str:
        return self._pool.keys.lane(self.agent_id)

    async def register(self) -> None:
        """Enter the pool under a new id, with an empty lane, or stand aside; not while leaving."""
        async with self._changing:
            if self._is_leaving:
                return
            if self.agent_id and self._refusal is None:
                # Its lease is over, but it lives (Redis was away, or the engine slow): what it held goes back now, and
                # that is no death. After an outage every agent of the fleet comes by here.
                await reap_agent(self._pool, self.agent_id, is_leaving=True)
            if await self._is_refused():
                return
            self.agent_id = new_process_id("agent")
            await self._store.add_pool(self._pool.keys.pool)
            claimed = await self._pool.register(
                self.agent_id,
                lease_ms=self.lease_ms,
                model=self._model,
                seen_s=int(self._clock.wall()),
                snapshot=self._snapshot,
            )
        if claimed.num_given == SHUT_OUT:
            log.warning("shut out between entering and registering, trying again", agent=self.agent_id)
            return
        if claimed.num_given < 0:
            log.warning("not registered again: an operator has removed this agent")
            self.on_removed()
            return
        is_ready = self._snapshot["state"] == "ready"
        log.info("registered" if is_ready else "entered the pool, not ready yet", agent=self.agent_id, **self._snapshot)
        self.on_hint(claimed.steal_after_ms)

    async def _is_refused(self) -> bool:
        """Ask for the pool; if that is in vain, stand aside under an id of its own."""
        was_refused = self._refusal is not None
        self._refusal = await self._refusal_of()
        if self._refusal is None:
            if was_refused:
                await self._pool.aside(self.agent_id, lease_ms=0)
            return False
        if not was_refused:
            log.error("this agent may not work here", error=self._refusal.said, remedy=self._refusal.remedy)
            self.agent_id = new_process_id("agent")
        issue = issue_of("VersionIncompatible", str(self._refusal), "", waits=True)
        shown = {**self._snapshot, "state": "failed", "slots": 0, "issues": encode_issues((issue,))}
        await self._store.add_pool(self._pool.keys.pool)
        await self._pool.aside(self.agent_id, lease_ms=self.lease_ms, snapshot=shown)
        return True

    async def _refusal_of(self) -> Incompatible | None:
        try:
            check(self._pool.keys.pool, await self._pool.enter(__version__, may_raise=False))
        except Incompatible as error:
            return error
        return None

    async def _forget(self) -> Reaped:
        """Be gone; what it still has is handed over without a death."""
        if self._refusal is None:
            return await reap_agent(self._pool, self.agent_id, is_leaving=True)
        await self._pool.aside(self.agent_id, lease_ms=0)
        return Reaped(is_alive=False)

    def describe(self, snapshot: Mapping[str, Value]) -> None:
        """What a registration says from now on."""
        self._snapshot.update(snapshot)

    async def renew(self, snapshot: Mapping[str, Value]) -> tuple[str, ...] | None:
        """Prolong the lease and reap whoever lost theirs. Returns requests to stop; None when the lease was over."""
        if self._refusal is not None:
            await self.register()
            return ()
        renewed = await self._pool.renew(self.agent_id, lease_ms=self.lease_ms, snapshot=snapshot)
        now = self._clock.monotonic()
        self._gate.answered(now)
        if not renewed.is_alive:
            return None
        if renewed.asked == Order.REMOVE:
            self.on_removed()
        self.on_hint(renewed.steal_after_ms)
        for agent_id in renewed.expired_agents if self._gate.is_open(now) else ():
            await reap_agent(self._pool, agent_id)
        await self._flush_tally()
        return renewed.cancelled

    def lost_touch(self) -> None:
        """Redis did not answer: other agents' leases may be over for the same reason."""
        self._gate.failed()

    async def withdraw(self) -> None:
        """Leave without anything to hand over, if it ever entered."""
        if self.agent_id:
            await self._forget()

    async def give_up(self) -> None:
        """End the lease now and let go of everything, as if it had run out: what was being computed counts a death."""
        await self._pool.renew(self.agent_id, lease_ms=0, snapshot={})
        await reap_agent(self._pool, self.agent_id)

    async def drain(self) -> None:
        """Take no more work; what has not begun goes back."""
        self._is_leaving = True
        async with self._changing:  # a registration under way ends first, or it would stay behind
            if self._refusal is None:
                await self._pool.drain(self.agent_id)

    async def leave(self) -> None:
        """Hand over what still runs, without counting a death, and be forgotten."""
        now = self._clock.monotonic()
        handed = await self._forget()
        self.handed_over = handed.num_returned, now
        self.tally.count(self._pool.keys.pool, "left")
        await self._flush_tally()
        log.info("left", agent=self.agent_id, handed_over=handed.num_returned)

    async def _flush_tally(self) -> None:
        # Counts are not worth a lease: what Redis refuses is tried again with the next renewal.
        with contextlib.suppress(*TROUBLE):
            await self.tally.flush_once()
