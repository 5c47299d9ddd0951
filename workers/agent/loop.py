"""The agent: claim, deliver, open, step, emit, settle. The numbers are those of the life of a request.

One task owns each direction. `deliver_loop` reads the lane and starts jobs; the engine thread steps;
`reply_loop` sends what the engine produced; `renew_loop` keeps the lease; `control_loop` hears cancels.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, assert_never

import msgspec

from paddler.clock import Clock
from paddler.engine import Engine, Event
from paddler.errors import EngineFailed, frame_of
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store
from paddler.store.scripts import Disposition, Emission, PoolScripts, Value
from paddler.wire.agent import CancelRequest, Control, Poke, decode_payload
from paddler.wire.balancer import Opened, encode_frame
from workers.agent.control import hear
from workers.agent.engine_thread import EngineThread
from workers.agent.lane import Ticket, read_new, read_pending
from workers.agent.membership import Membership
from workers.agent.retrying import repeat
from workers.agent.running import Running

log = get_logger(__name__)

BLOCK_MS = 2000


class AgentLoop:
    """One agent's life on the queue, under the id it registered with last."""

    def __init__(
        self,
        store: Store,
        pool: PoolScripts,
        engine: Engine,
        clock: Clock,
        *,
        name: str,
        lease_ms: int,
        snapshot: Mapping[str, Value],
    ) -> None:
        self._store = store
        self._pool = pool
        self._clock = clock
        self._name = name
        self._slots = engine.info.slots_total
        self._membership = Membership(
            store,
            pool,
            clock,
            lease_ms=lease_ms,
            model=engine.info.model,
            snapshot={**snapshot, "name": name, "slots": self._slots},
        )
        self._running: dict[str, Running] = {}
        self._dirty: set[str] = set()
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._early_cancels: deque[str] = deque(maxlen=1024)
        self._rounds_renewed = -1
        self._next_net = 0.0
        self.engine = EngineThread(engine, self._on_events)

    @property
    def agent_id(self) -> str:
        return self._membership.agent_id

    @property
    def num_running(self) -> int:
        return len(self._running)

    # The lease (step 10)

    async def register(self) -> None:
        """Enter the pool anew, with empty slots."""
        for running in list(self._running.values()):
            self._drop(running)
        await self._membership.register()

    async def run_renew_once(self) -> None:
        """Renew if the engine has moved since the last time; hear what was cancelled."""
        is_busy = any(not running.is_dropped for running in self._running.values())
        if is_busy and self.engine.num_rounds == self._rounds_renewed:
            log.warning("the engine made no progress; the lease is not renewed", agent=self.agent_id)
            return
        self._rounds_renewed = self.engine.num_rounds
        cancelled = await self._membership.renew()
        if cancelled is None:
            log.warning("the lease was over: dropping all slots", agent=self.agent_id)
            await self.register()
            return
        for request_id in cancelled:
            self.engine.cancel(request_id)

    # Tickets in (steps 3 to 5)

    async def run_deliver_once(self, client: Any, *, pending: bool) -> None:
        if len(self._running) >= self._slots:
            self._has_room.clear()
            await self._has_room.wait()
        lane = self._membership.lane_key
        if pending:
            tickets = await read_pending(client, lane, self.agent_id)
        else:
            room = self._slots - len(self._running)
            tickets = await read_new(client, lane, self.agent_id, count=room, block_ms=BLOCK_MS)
        for ticket in tickets:
            if ticket.request_id not in self._running:
                await self._open(ticket)

    async def _open(self, ticket: Ticket) -> None:
        frame = encode_frame(Opened(self._name, ticket.attempt))
        opened = await self._pool.open(self.agent_id, ticket.request_id, ticket.attempt, frame)
        if opened.disposition not in (Disposition.OK, Disposition.CANCELLED):
            return
        running = Running(ticket.request_id, ticket.attempt, opened.journal)
        self._running[ticket.request_id] = running
        if opened.disposition is Disposition.CANCELLED:
            running.end_cancelled()
            self._mark_dirty(running)
            return
        try:
            job = running.job(decode_payload(opened.payload))
        except (msgspec.MsgspecError, ValueError) as error:
            log.exception("cannot read a request", request=ticket.request_id)
            running.fail(frame_of(EngineFailed(f"this agent cannot read the request: {error}")))
            self._mark_dirty(running)
            return
        self.engine.start(job)
        if ticket.request_id in self._early_cancels:
            self.engine.cancel(ticket.request_id)

    # Events out (steps 6 and 7)

    def _on_events(self, events: list[Event]) -> None:
        for event in events:
            running = self._running.get(event.request_id)
            if running is None:
                continue
            running.take_event(event)
            if running.is_dropped:
                if running.outcome is not None:
                    self._forget(running)
            else:
                self._mark_dirty(running)

    def _mark_dirty(self, running: Running) -> None:
        self._dirty.add(running.request_id)
        self._has_news.set()

    async def run_reply_once(self) -> None:
        """Send everything that is new: one emit for all streams, one settle for each that ended."""
        await self._has_news.wait()
        self._has_news.clear()
        dirty, self._dirty = self._dirty, set()
        known = [running for request_id in dirty if (running := self._running.get(request_id))]
        emits: list[tuple[Running, Emission]] = []
        settles: list[tuple[Running, Emission]] = []
        for running in known:
            emission = running.emission()
            if emission is not None and not running.is_dropped:
                (settles if running.is_last else emits).append((running, emission))
        try:
            if emits:
                placed = await self._pool.emit(self.agent_id, [emission for _, emission in emits])
                for (running, _), place in zip(emits, placed, strict=True):
                    self._placed(running, place.disposition, place.length)
            for running, emission in settles:
                assert running.outcome is not None
                place = await self._pool.settle(self.agent_id, emission, running.outcome, running.usage)
                if place.disposition is Disposition.OK:
                    self._forget(running)
                else:
                    self._placed(running, place.disposition, place.length)
        except TROUBLE:
            # Repeated byte for byte: whatever ran although its answer was lost changes nothing the second time.
            self._dirty |= dirty
            self._has_news.set()
            raise

    def _placed(self, running: Running, disposition: Disposition, length: int) -> None:
        match disposition:
            case Disposition.OK:
                running.confirm(length)
                if running.outcome is not None:
                    self._mark_dirty(running)
            case Disposition.SHORT:
                log.warning("Redis lost the end of a journal, sending it again", request=running.request_id)
                running.confirm(length)
                self._mark_dirty(running)
            case Disposition.CANCELLED:
                running.discard()
                if running.outcome is None:
                    self.engine.cancel(running.request_id)
                else:
                    running.end_cancelled()
                    self._mark_dirty(running)
            case Disposition.FENCED | Disposition.GONE | Disposition.LONG:
                # Another agent owns it, or the journal knows more than this agent: the ticket, if it is still
                # ours, is pending and will be opened again from the journal.
                log.info("dropped a request", request=running.request_id, why=disposition)
                self._drop(running)

    def _drop(self, running: Running) -> None:
        if running.outcome is not None:
            self._forget(running)
        elif not running.is_dropped:
            running.is_dropped = True
            self.engine.cancel(running.request_id)

    def _forget(self, running: Running) -> None:
        self._running.pop(running.request_id, None)
        self._has_room.set()

    # Leaving (step 11)

    async def leave(self, grace_s: float) -> None:
        """Take nothing new, let running requests end within the grace time, hand the rest over."""
        await self._membership.drain()
        end = self._clock.monotonic() + grace_s
        while self._running and self._clock.monotonic() < end:
            await self._clock.sleep(0.02)
        await self._membership.leave()

    # Loops

    async def deliver_loop(self) -> None:
        client = self._store.dedicated()

        async def once() -> None:
            await self.run_deliver_once(client, pending=False)
            if self._clock.monotonic() >= self._next_net:
                # The safety nets: tickets a lost connection carried, and work nobody told us about.
                await self.run_deliver_once(client, pending=True)
                await self._pool.claim(self.agent_id)
                self._next_net = self._clock.monotonic() + BLOCK_MS / 1000

        await self._for_ever(once)

    async def reply_loop(self) -> None:
        await self._for_ever(self.run_reply_once)

    async def renew_loop(self) -> None:
        """Renew at a quarter of the lease."""

        async def once() -> None:
            await self.run_renew_once()
            await self._clock.sleep(self._membership.lease_ms / 4000)

        await self._for_ever(once)

    async def control_loop(self) -> None:
        """Listen under the present id; a new registration listens anew."""

        async def once() -> None:
            agent_id = self.agent_id
            async with aclosing(hear(self._store, self._pool.keys.control(agent_id))) as messages:
                async for message in messages:
                    if message is not None:
                        await self._on_control(message)
                    if agent_id != self.agent_id:
                        return

        await self._for_ever(once)

    async def _on_control(self, message: Control) -> None:
        match message:
            case CancelRequest(request_id):
                self._early_cancels.append(request_id)
                self.engine.cancel(request_id)
            case Poke():
                await self._pool.claim(self.agent_id)
            case _:
                assert_never(message)

    async def _for_ever(self, once: Callable[[], Awaitable[None]]) -> None:
        await repeat(once, self._clock, on_trouble=self._on_trouble)

    def _on_trouble(self) -> None:
        self._membership.lost_touch()
        self._next_net = 0.0
