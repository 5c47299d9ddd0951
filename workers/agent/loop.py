"""The agent: claim, deliver, open, step, emit, settle. The numbers are those of the life of a request.

One task owns each direction. `deliver_loop` reads the lane and starts jobs; the engine thread steps;
`reply_loop` sends what the engine produced; `renew_loop` keeps the lease; `control_loop` hears cancels.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Set
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from paddler.clock import Clock
from paddler.engine import Engine, Event, Job, Retained
from paddler.errors import EngineFailed, frame_of
from paddler.issues import encode_issues
from paddler.logs import get_logger
from paddler.prefixes.store import Prefixes
from paddler.store.client import Store
from paddler.store.pipe import Pipe, Value
from paddler.store.results import Disposition, OpenedRequest, Order
from paddler.store.scripts import PoolScripts
from paddler.wire.agent import Ask, CancelRequest, Control, OperatorOrder, Payload, Poke, TryTemplate, decode_payload
from paddler.wire.balancer import Opened, encode_frame
from workers.agent.claiming import Claimer
from workers.agent.control import hear
from workers.agent.engine_thread import EngineThread
from workers.agent.handing_over import save_states
from workers.agent.holding import Holding
from workers.agent.lane import Ticket, read_new, read_pending
from workers.agent.membership import Membership
from workers.agent.observer import Observer
from workers.agent.outbox import Outbox
from workers.agent.pinning import Pinning
from workers.agent.residency import Residency
from workers.agent.retrying import repeat
from workers.agent.running import Running
from workers.agent.standing import Standing
from workers.agent.telling import saved_fields, tell
from workers.agent.template_trials import TemplateTrials
from workers.agent.tiers.counting import TierCounts

if TYPE_CHECKING:
    from workers.agent.tiers.sharing import Sharing
    from workers.agent.tracing import EngineSpans

log = get_logger(__name__)

BLOCK_MS = 2000
FLUSH_MS = 20
KV_GRACE_S = 2.0


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
        flush_ms: int = FLUSH_MS,
        standing: Standing | None = None,
        on_removed: Callable[[], None] = lambda: None,
        spans: EngineSpans | None = None,
        monitoring_ms: int = 0,
        sharing: Sharing | None = None,
    ) -> None:
        """`standing` is how it stands to a desired state, if it follows one. `on_removed` is called, more than once
        perhaps, when an operator wants the process to end. `spans` None: nothing is traced. What is measured is
        published with the lease, every `monitoring_ms` at most. `sharing` None: no state of its KV cache is shared."""
        self._store = store
        self._pool = pool
        self._clock = clock
        self._name = name
        self._standing = standing
        self._sharing = sharing
        self._info = engine.info
        self._slots = engine.info.slots_total
        if spans is not None:
            spans.model = engine.info.model
        self._membership = Membership(
            store,
            pool,
            clock,
            lease_ms=lease_ms,
            model=engine.info.model,
            snapshot={**snapshot, "name": name, "slots": self._slots},
        )
        self._running: dict[str, Running] = {}
        self._has_room = asyncio.Event()
        self._early_cancels: deque[str] = deque(maxlen=1024)
        self._rounds_renewed = -1
        self._next_net = 0.0
        self._monitoring_ms = monitoring_ms
        self._next_snapshot = 0.0
        self._told: Set[str] = frozenset()
        self._claimer = Claimer(pool, clock, self._membership)
        self._membership.on_hint = self._claimer.note
        self._membership.on_removed = on_removed
        residency = Residency(pool.keys.pool)
        self._holding = Holding(pool, clock, self._membership, residency, is_shared=self._is_shared)
        self._observer = Observer(clock, self._holding, pool.keys.pool, self._membership.tally, spans)
        self._tiers = TierCounts(pool.keys.pool, self._membership.tally)
        self._trials = TemplateTrials(pool, engine.info, clock)
        self.engine = EngineThread(engine, self._on_events)
        self.pinning = Pinning(Prefixes(store, clock), pool.keys.pool, self.engine, clock)
        self._outbox = Outbox(
            pool,
            self._membership,
            clock,
            flush_s=flush_ms / 1000,
            before_release=self._before_release,
            on_settled=self._on_settled,
            on_dropped=self._drop,
            on_cancelled=self._cancel,
        )

    @property
    def agent_id(self) -> str:
        return self._membership.agent_id

    def _is_shared(self) -> bool:
        return self._sharing is not None and self._sharing.is_shared

    @property
    def handed_over(self) -> tuple[int, float]:
        """How many requests `leave` has handed over, and when by the monotonic clock."""
        return self._membership.handed_over

    @property
    def num_running(self) -> int:
        return len(self._running)

    # The lease (step 10)

    async def register(self) -> None:
        """Enter the pool anew, with empty slots."""
        self.drop_all()
        self._next_snapshot = 0.0
        self._membership.describe(self._condition())
        await self._membership.register()

    async def run_renew_once(self) -> None:
        """Renew if the engine has moved since the last time; hear what was cancelled."""
        is_busy = any(not running.is_dropped for running in self._running.values())
        if is_busy and self.engine.num_rounds == self._rounds_renewed:
            log.warning("the engine made no progress; the lease is not renewed", agent=self.agent_id)
            return
        self._rounds_renewed = self.engine.num_rounds
        told: dict[str, Value] = {} if self._standing is None else dict(self._standing.fields())
        told |= {**self.pinning.fields(), **self._condition()}
        cancelled = await self._membership.renew({**self._measured(), **told})
        if cancelled is None:
            log.warning("the lease was over: dropping all slots", agent=self.agent_id)
            await self.register()
            return
        for request_id in cancelled:
            self.engine.cancel(request_id)

    def _measured(self) -> Mapping[str, Value]:
        """What is to be published now of what was measured: all, in its interval and when there is more to tell."""
        engine = self.engine.engine
        self._tiers.count(engine.tiers)
        sharing: Mapping[str, Value] = {} if self._sharing is None else self._sharing.fields()
        measured = {**self._observer.snapshot(), **saved_fields(engine.saved, engine.tiers), **sharing}
        now = self._clock.monotonic()
        if now < self._next_snapshot and measured.keys() == self._told:
            return {}
        self._next_snapshot, self._told = now + self._monitoring_ms / 1000, measured.keys()
        return measured

    def _condition(self) -> Mapping[str, Value]:
        """What the engine may do now, and what is wrong with it or with the state that is wanted."""
        info = self.engine.engine.info
        wanted = () if self._standing is None else self._standing.issues
        told: dict[str, Value] = {"issues": encode_issues((*wanted, *info.issues))}
        return told if info.slots_usable is None else {**told, "slots": info.slots_usable}

    async def _before_release(self) -> None:
        """What sent a request back may be that its engine can do nothing now: that is to be known first."""
        if self.engine.engine.info.slots_usable is not None:
            await self._membership.renew(self._condition())

    # Tickets in (steps 3 to 5)

    async def run_deliver_once(self, pipe: Pipe, *, pending: bool) -> None:
        if len(self._running) >= self._slots:
            self._has_room.clear()
            await self._has_room.wait()
        lane = self._membership.lane_key
        if pending:
            tickets = await read_pending(pipe, lane, self.agent_id)
        else:
            room = self._slots - len(self._running)
            tickets = await read_new(pipe, lane, self.agent_id, count=room, block_ms=BLOCK_MS)
        new = [ticket for ticket in tickets if ticket.request_id not in self._running]
        # What is read again may have been opened: its journal comes first.
        begins = (self._begin(one) if one.payload and not pending else self._open(one) for one in new)
        await asyncio.gather(*begins)

    async def _begin(self, ticket: Ticket) -> None:
        """Start a request that comes with its payload, and let its opening be confirmed meanwhile. There are no peers
        to be told of: with its payload comes only what no other live agent holds more of."""
        frame = self._opening(ticket)
        running = Running(ticket.request_id, ticket.attempt, frame)
        try:
            payload = decode_payload(ticket.payload or b"")
            job = running.job(payload)
        except (msgspec.MsgspecError, ValueError):
            await self._open(ticket)
            return
        running.is_opening = True
        self._running[ticket.request_id] = running
        opening = asyncio.create_task(self._pool.open(self.agent_id, ticket.request_id, ticket.attempt, frame))
        opening.add_done_callback(partial(self._confirm, running, frame))
        # Sent before it starts: should it kill this process at once, it must be known who did. The call is written in
        # the next turn of the event loop and is with the kernel at the end of that.
        await self._clock.sleep(0)
        await self._clock.sleep(0)
        if not running.is_dropped:
            self._start(running, payload, job)

    def _confirm(self, running: Running, frame: bytes, opening: asyncio.Task[OpenedRequest]) -> None:
        running.is_opening = False
        if opening.cancelled():
            return
        if opening.exception() is not None:
            # Whether it was opened will be seen when it is: the ticket is pending.
            self._drop(running)
            self._next_net = 0.0
            return
        opened = opening.result()
        if opened.disposition not in (Disposition.OK, Disposition.CANCELLED):
            self._drop(running)
        elif opened.disposition is Disposition.CANCELLED and not opened.journal:
            self._cancel(running)
        elif opened.journal != frame:
            self._drop(running)
        if not running.is_dropped:
            self._outbox.put(running)

    async def _open(self, ticket: Ticket) -> None:
        frame = self._opening(ticket)
        most_peers = 0 if self._sharing is None else self._sharing.most_peers
        opened = await self._pool.open(self.agent_id, ticket.request_id, ticket.attempt, frame, most_peers=most_peers)
        if opened.disposition not in (Disposition.OK, Disposition.CANCELLED):
            return
        running = Running(ticket.request_id, ticket.attempt, opened.journal)
        self._running[ticket.request_id] = running
        if opened.disposition is Disposition.CANCELLED:
            running.end_cancelled()
            self._outbox.put(running)
            return
        try:
            payload = decode_payload(opened.payload)
            known = {"vocabulary": self._info.vocabulary, "weights": self._info.weights}
            job = running.job(payload, **known, peers=opened.peers)
        except EngineFailed as error:
            running.fail(frame_of(error))
            self._outbox.put(running)
            return
        except (msgspec.MsgspecError, ValueError) as error:
            log.exception("cannot read a request", request=ticket.request_id)
            running.fail(frame_of(EngineFailed(f"this agent cannot read the request: {error}")))
            self._outbox.put(running)
            return
        self._start(running, payload, job)

    def _opening(self, ticket: Ticket) -> bytes:
        return encode_frame(Opened(self._name, ticket.attempt, self._info.vocabulary, self._info.weights))

    def _start(self, running: Running, payload: Payload, job: Job) -> None:
        self._observer.began(running.request_id, payload, running.emitted_text, job.num_resumed)
        self.pinning.began(running.request_id, payload)
        self.engine.start(job)
        if running.request_id in self._early_cancels:
            self.engine.cancel(running.request_id)

    # Events out (steps 6 and 7)

    def _on_events(self, events: list[Event]) -> None:
        events = self.pinning.take(events)
        # What is learned from them costs time, and what is sent must not wait for it.
        asyncio.get_running_loop().call_soon(self._observer.saw_all, events)
        for event in events:
            running = self._running.get(event.request_id)
            if running is None:
                continue
            running.take_event(event)
            if isinstance(event, Retained):
                continue
            if not running.is_dropped:
                if not running.is_opening:
                    self._outbox.put(running)
            elif running.is_over:
                self._forget(running)

    def _on_settled(self, running: Running, steal_after_ms: int) -> None:
        self._forget(running)
        self._claimer.note(steal_after_ms)

    def _cancel(self, running: Running) -> None:
        self.engine.cancel(running.request_id)

    def _drop(self, running: Running) -> None:
        """Another agent owns it, or the journal knows more than this agent: the ticket, if it is still ours, is
        pending and will be opened again from the journal."""
        if running.is_over:
            self._forget(running)
        elif not running.is_dropped:
            running.is_dropped = True
            self.engine.cancel(running.request_id)

    def _forget(self, running: Running) -> None:
        # A repeated answer about an earlier turn of this request must not make a later one be opened twice.
        if self._running.get(running.request_id) is running:
            del self._running[running.request_id]
        self._has_room.set()

    # Leaving (step 11)

    async def leave(self, grace_s: float, kv_grace_s: float = KV_GRACE_S) -> None:
        """Take nothing new, let running requests end within the grace time, hand the rest over, with what `kv_grace_s`
        suffices to save of their states. They go on meanwhile."""
        await self._membership.drain()
        end = self._clock.monotonic() + grace_s
        while self._running and self._clock.monotonic() < end:
            await self._clock.sleep(0.02)
        await save_states(self.engine, self._clock, kv_grace_s)
        self._tiers.count(self.engine.engine.tiers)
        await self._membership.leave()

    def drop_all(self) -> None:
        """What ran here is others' now: it takes no step any more."""
        for running in list(self._running.values()):
            self._drop(running)

    async def give_up(self) -> None:
        """The engine hangs: let the requests go on elsewhere at once, each with a death."""
        await self._membership.give_up()

    # Loops

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Everything that runs for as long as the agent does."""
        return [
            self.deliver_loop(),
            self._for_ever(self._outbox.run_once),
            self.renew_loop(),
            self.control_loop(),
            self._for_ever(self._claimer.run_claim_once),
            self._for_ever(self._holding.run_publish_once),
            self._for_ever(self.pinning.run_follow_once),
            self._for_ever(self.pinning.run_keep_once),
        ]

    async def deliver_loop(self) -> None:
        pipe = self._store.blocking(BLOCK_MS)

        async def once() -> None:
            await self.run_deliver_once(pipe, pending=False)
            if self._clock.monotonic() >= self._next_net:
                # The safety nets: tickets a lost connection carried, and work nobody told us about.
                await self.run_deliver_once(pipe, pending=True)
                claimed = await self._pool.claim(self.agent_id)
                self._claimer.note(claimed.steal_after_ms)
                self._next_net = self._clock.monotonic() + BLOCK_MS / 1000

        try:
            await self._for_ever(once)
        finally:
            await pipe.close()

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
            case Poke(after_ms):
                self._claimer.note(max(1, after_ms))
            case Ask():
                await tell(self._pool, message, metadata=self._info.metadata, override=self._override)
            case TryTemplate():
                self._trials.start(message, self._override)
            case OperatorOrder(what):
                log.info("an operator's order", order=what, agent=self.agent_id)
                if what == Order.REMOVE:
                    self._membership.on_removed()
            case _:
                assert_never(message)

    @property
    def _override(self) -> str | None:
        return None if self._standing is None else self._standing.override

    async def _for_ever(self, once: Callable[[], Awaitable[None]]) -> None:
        await repeat(once, self._clock, on_trouble=self._on_trouble)

    def _on_trouble(self) -> None:
        self._membership.lost_touch()
        self._next_net = 0.0
