"""An autoscaler at work: it looks when a request comes, when something is due and every `--poll-interval`, and acts on
what the scaler decides while it holds its pool's lease. One task owns the state; all else reaches it through a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine
from typing import Any, assert_never

from msgspec import Struct, structs

from paddler.autoscale.demand import BLOCK_MS, DemandWatch
from paddler.autoscale.driver import Driver, DriverFailed, Ended, Kinship, Launched, Order
from paddler.autoscale.effects import Drain, Effect, Say, Start, Stop, Undrain
from paddler.autoscale.record import Record, Records, kept_instances, restore
from paddler.autoscale.scaler import Scaler
from paddler.autoscale.seen import seen_of
from paddler.clock import Clock
from paddler.desired.store import DesiredStates
from paddler.entrance import Incompatible, look_at
from paddler.ids import new_process_id
from paddler.jobs.lanes import Lane
from paddler.jobs.overview import Overview
from paddler.logs import get_logger
from paddler.metrics.lease import LEASE_MS, Lease
from paddler.store import results
from paddler.store.client import TROUBLE, Store
from paddler.store.remedies import remedy_for
from paddler.up.supervisor import REFUSALS, describe

log = get_logger(__name__)

GAP_S = 0.25
"""Between two looks that requests cause: a pool that is busy need not be looked at for each."""
RETRY_S = 0.5
RECORD_S = 5.0
GOODBYE_S = 1.0
STANDS_BY = "another autoscaler acts for this pool; this one stands by"


class Due(Struct, frozen=True):
    """A request has come, or it is time to look."""


class Led(Struct, frozen=True):
    """The lease is held from now on."""


class Started(Struct, frozen=True):
    name: str
    launched: Launched


class StartFailed(Struct, frozen=True):
    name: str
    why: str
    is_final: bool


class Stopped(Struct, frozen=True):
    name: str
    why: str | None


class Quit(Struct, frozen=True):
    """Asked to end, for the first time or again."""


Event = Due | Led | Started | StartFailed | Stopped | Ended | Quit


class Autoscaler:
    """Of one pool. `driver_name` is what the record calls the driver."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        scaler: Scaler,
        driver: Driver,
        *,
        pool: str,
        driver_name: str,
        poll_s: float,
        counts_batch: bool = False,
    ) -> None:
        self.who = new_process_id("autoscale")
        self.records = Records(store, pool)
        self.lease = Lease(store, clock, self.records.lease_key, self.who)
        self.num_looks = 0
        self._store = store
        self._clock = clock
        self._scaler = scaler
        self._driver = driver
        self._driver_name = driver_name
        self._pool = pool
        self._poll_s = poll_s
        self._counts_batch = counts_batch
        self._demand = DemandWatch(store, pool, counts_batch=counts_batch)
        self._overview = Overview(store)
        self._states = DesiredStates(store, clock)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._acting: set[asyncio.Task[None]] = set()
        self._telling = asyncio.Lock()
        self._has_looked = asyncio.Event()
        self._looked_at = 0.0
        self._is_blind = False
        self._has_held_back = False
        self._has_given_up = False
        self._written: tuple[Record, float] | None = None

    def stop(self) -> None:
        """Begin to end; called again, hurry."""
        self._events.put_nowait(Quit())

    async def run(self) -> None:
        """Until it has been told to end and its agents have ended, if they end with it. Raises `Incompatible`."""
        loops = [asyncio.create_task(one) for one in (self._lead_loop(), self._wake_loop(), self._end_loop())]
        try:
            while not self._scaler.is_done:
                await self._take(await self._next_event())
        finally:
            for task in (*loops, *self._acting):
                task.cancel()
            await asyncio.gather(*loops, *self._acting, return_exceptions=True)
            await self._driver.close()

    async def _next_event(self) -> Event:
        """The next one, or `Due` when it is time."""
        now = self._clock.monotonic()
        due = min(self._scaler.next_time(now) or now + self._poll_s, self._looked_at + self._poll_s)
        if self._is_blind or self._has_held_back:
            due = now + RETRY_S
        # What is due may have to wait for Redis, or for the lease.
        due = max(due, self._looked_at + GAP_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(due - now, 0.0)):
                return await self._events.get()
        return Due()

    async def _take(self, event: Event) -> None:
        now = self._clock.monotonic()
        match event:
            case Due():
                await self._look()
            case Led():
                await self._take_over()
            case Started(name, launched):
                await self._act(self._scaler.on_started(name, now, pid=launched.pid, host=launched.host))
            case StartFailed(name, why, is_final):
                await self._act(self._scaler.on_start_failed(name, why, now, is_final=is_final))
            case Stopped(name, why):
                scaler = self._scaler
                await self._act(scaler.on_stopped(name, now) if why is None else scaler.on_stop_failed(name, why, now))
            case Ended(name, status):
                await self._ended(name, status)
            case Quit():
                await self._quit()
            case _:
                assert_never(event)

    # Looking

    async def _look(self) -> None:
        self._looked_at = self._clock.monotonic()
        self._has_held_back = False
        if not self.lease.is_held or self._scaler.is_stopping:
            return
        try:
            await self._demand.look()
            pool = await self._overview.pool(self._pool)
            version = await self._states.version(self._pool)
        except TROUBLE as error:
            self._went_blind(error)
            return
        finally:
            self._has_looked.set()
        if self._is_blind:
            log.info("Redis answers again")
        self._is_blind = False
        self.num_looks += 1
        kin = {lane.agent: self._kinship(lane) for lane in pool.lanes if not lane.is_lost}
        seen = seen_of(pool, version, kin, counts_batch=self._counts_batch)
        # Reading took time, and only who holds the lease acts.
        if self.lease.is_held:
            await self._act(self._scaler.on_seen(seen, self._clock.monotonic()))

    def _went_blind(self, error: BaseException) -> None:
        if not self._is_blind:
            told = {"error": str(error), "remedy": remedy_for(error)}
            log.warning("the pool cannot be seen: no agent is started or stopped until it can", **told)
        self._is_blind = True
        self._scaler.on_blind(self._clock.monotonic())

    def _kinship(self, lane: Lane) -> Kinship:
        if not self._scaler.is_name(lane.name):
            return Kinship.FOREIGN
        return self._driver.adopt(lane.name, lane.host, lane.pid or None)

    async def _wake_loop(self) -> None:
        pipe = self._store.blocking(BLOCK_MS)
        try:
            while True:
                try:
                    if not self.lease.is_held or not await self._demand.wait_once(pipe):
                        await self._clock.sleep(0 if self.lease.is_held else RETRY_S)
                        continue
                except TROUBLE:
                    await self._clock.sleep(RETRY_S)
                    continue
                self._has_looked.clear()
                self._events.put_nowait(Due())
                await self._has_looked.wait()
                await self._clock.sleep(GAP_S)
        finally:
            await pipe.close()

    # The lease

    async def _lead_loop(self) -> None:
        told = ""
        while not self._scaler.is_stopping and not self._has_given_up:
            was_held, before = self.lease.is_held, told
            try:
                await self.lease.run_once()
                told = "" if self.lease.is_held else STANDS_BY
            except TROUBLE as error:
                told = f"{str(error) or type(error).__name__}: {remedy_for(error)}"
            if told not in ("", before):
                (log.info if told is STANDS_BY else log.warning)("does not act", pool=self._pool, why=told)
            if self.lease.is_held and not was_held:
                self._events.put_nowait(Led())
            await self._clock.sleep(LEASE_MS / 4000)

    async def _take_over(self) -> None:
        """Where this one, or the one before, was. What was seen before that is no longer true."""
        now = self._clock.monotonic()
        self._scaler.on_blind(now)
        self._written = None
        try:
            # One that stood by, or was cut off, may have been left behind by the others.
            await look_at(self._store, self._pool)
            # So that requests to a pool that no agent has ever been in are accepted, and start one.
            await self._store.add_pool(self._pool)
            record = await self.records.read()
        except TROUBLE as error:
            self._went_blind(error)
            self._events.put_nowait(Led())
            await self._clock.sleep(RETRY_S)
            return
        except Incompatible:
            await self._give_up()
            raise
        if record is not None and record.who != self.who:
            restore(self._scaler, record, now)
            for instance in list(self._scaler.instances.values()):
                if self._driver.adopt(instance.name, instance.host, instance.pid) is not Kinship.OURS:
                    self._scaler.on_not_started(instance.name)
        log.info("acts for the pool", pool=self._pool, after=record.who if record else None)
        await self._look()

    # Acting

    async def _act(self, effects: list[Effect]) -> None:
        # Whoever comes after us would not know of it, or is at it. Agents that end with us do so in any case.
        if not await self._write_record() and not self._scaler.is_stopping:
            self._hold_back(effects)
            effects = [effect for effect in effects if isinstance(effect, Say)]
        for effect in effects:
            match effect:
                case Start(name):
                    self._begin(self._start(self._order(name)))
                case Stop(name):
                    self._begin(self._stop(self._order(name)))
                case Drain(agent_id):
                    self._begin(self._tell(agent_id, results.Order.DRAIN))
                case Undrain(agent_id):
                    self._begin(self._tell(agent_id, results.Order.UNDRAIN))
                case Say(event, fields, is_problem):
                    (log.warning if is_problem else log.info)(event, pool=self._pool, **fields)
                case _:
                    assert_never(effect)

    def _hold_back(self, effects: list[Effect]) -> None:
        """Who is to drain, or no longer, is told at the next look, as always until it is seen."""
        now = self._clock.monotonic()
        for effect in effects:
            if isinstance(effect, Start | Stop):
                self._scaler.on_held_back(effect.name, now)
                self._has_held_back = True

    def _begin(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    def _order(self, name: str) -> Order:
        one = self._scaler.instances[name]
        agent_id = one.agent.agent_id if one.agent else ""
        return Order(name=name, wanted=self._scaler.wanted, agent_id=agent_id, host=one.host, pid=one.pid)

    async def _start(self, order: Order) -> None:
        try:
            launched = await self._driver.start(order)
        except DriverFailed as error:
            self._events.put_nowait(StartFailed(order.name, str(error), error.is_final))
        except Exception as error:  # no more file descriptors, say: nothing else would ever end this start
            self._events.put_nowait(StartFailed(order.name, f"{type(error).__name__}: {error}", False))
        else:
            self._events.put_nowait(Started(order.name, launched))

    async def _stop(self, order: Order) -> None:
        try:
            await self._driver.stop(order)
        except DriverFailed as error:
            self._events.put_nowait(Stopped(order.name, str(error)))
        except Exception as error:
            self._events.put_nowait(Stopped(order.name, f"{type(error).__name__}: {error}"))
        else:
            self._events.put_nowait(Stopped(order.name, None))

    async def _tell(self, agent_id: str, order: results.Order) -> None:
        """Whether it was heard is seen at the next look, which orders again what was not."""
        try:
            async with self._telling:  # an older order must not come after a newer one
                if not self.lease.is_held:
                    return
                await self._store.pool(self._pool).order(agent_id, order)
        except TROUBLE as error:
            log.warning("an agent could not be told", agent=agent_id, order=order, error=str(error))

    async def _end_loop(self) -> None:
        while True:
            self._events.put_nowait(await self._driver.ended.get())

    async def _ended(self, name: str, status: int | None) -> None:
        how = "has ended" if status is None else describe(status)
        now = self._clock.monotonic()
        effects = self._scaler.on_ended(name, how, now, was_asked=status == 0, is_final=status in REFUSALS)
        await self._act(effects)
        await self._look()

    async def _quit(self) -> None:
        if self._scaler.is_stopping:
            self._driver.hurry()
            return
        log.info("ending", pool=self._pool, agents=len(self._scaler.instances))
        await self._act(self._scaler.on_stop(self._clock.monotonic()))
        await self._give_up()

    async def _give_up(self) -> None:
        self._has_given_up = True
        with contextlib.suppress(TimeoutError, *TROUBLE):
            async with asyncio.timeout(GOODBYE_S):
                await self.lease.give_up()

    async def _write_record(self) -> bool:
        """Whether Redis has it, as far as there was anything new, and the lease is held still: writing may wait longer
        than that lasts."""
        if not self.lease.is_held or self._has_given_up:
            return False
        now = self._clock.monotonic()
        scaler = self._scaler
        record = Record(
            who=self.who,
            host=socket.gethostname(),
            pid=os.getpid(),
            driver=self._driver_name,
            at_ms=round(self._clock.wall() * 1000),
            policy=scaler.policy,
            demand=scaler.demand,
            wanted=scaler.wanted,
            # Those that end with us are nobody's to go on with.
            instances=() if scaler.is_stopping and self._driver.ends_with_us else kept_instances(scaler, now),
            failures=scaler.backoff.failures,
            trouble=scaler.backoff.trouble,
            retry_in_s=round(max(scaler.backoff.next_start - now, 0.0), 1),
            held=scaler.held,
            drained=tuple(sorted(scaler.drained)),
        )
        if self._written is not None and now - self._written[1] < RECORD_S and _is_same(self._written[0], record):
            return True
        try:
            is_written = await self.records.write(record)
        except TROUBLE as error:
            self._went_blind(error)
            return False
        if is_written:
            self._written = record, now
        return is_written and self.lease.is_held


def _is_same(one: Record, other: Record) -> bool:
    """Apart from how long things have been so."""
    return _timeless(one) == _timeless(other)


def _timeless(record: Record) -> Record:
    instances = tuple(structs.replace(one, for_s=0.0) for one in record.instances)
    return structs.replace(record, at_ms=0, retry_in_s=0.0, instances=instances)
