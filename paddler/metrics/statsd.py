"""Numbers for a sink of StatsD, every `--statsd-reporting-interval`.

The fleet's gauges are sent by one process, which a lease in Redis elects among all that have the same sink and prefix;
timers by each, of the requests it has submitted. UDP: a sink that is away costs nothing and misses what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from msgspec import Struct
from statsd import StatsClient

from paddler.clock import Clock
from paddler.ids import new_process_id
from paddler.jobs.measuring import Measured, Meter
from paddler.logs import get_logger
from paddler.metrics.fleet import FleetReading, FleetWatch
from paddler.metrics.lease import LEASE_MS, Lease
from paddler.metrics.tier_metrics import tier_gauges
from paddler.settings import Address
from paddler.store.client import TROUBLE, Store
from paddler.store.metrics_keys import statsd_reported_key, statsd_sender_key

MAX_TIMERS = 500
"""So many are sent before the interval is over."""
REPORTED_S = 86_400
STOP_S = 1.0
MAX_PACKET = 1400
"""Bytes: what goes through a network in one piece."""

log = get_logger(__name__)


class StatsdSettings(Struct, frozen=True):
    """`prefix` is before the dot of every name."""

    addr: Address
    prefix: str
    interval_ms: int

    @property
    def sink(self) -> str:
        return f"{self.addr} {self.prefix}"


class Timers(Meter):
    """Gathers what each request has taken, ms, that somebody waits for: one of class batch may wait for hours."""

    def __init__(self) -> None:
        self._values: list[tuple[str, float]] = []
        self.has_many: asyncio.Event = asyncio.Event()

    def ended(self, measured: Measured) -> None:
        if measured.request_class == "batch":
            return
        for name, at in (("queue_wait", measured.opened_at), ("ttft", measured.first_token_at)):
            if at is not None:
                self._values.append((name, (at - measured.submitted_at) * 1000))
        if len(self._values) >= MAX_TIMERS:
            self.has_many.set()

    def take(self) -> list[tuple[str, float]]:
        values, self._values = self._values, []
        self.has_many.clear()
        return values


class Statsd:
    """StatsD of one process: `timers` is a meter for its gateway; `start` and `close`."""

    def __init__(self, settings: StatsdSettings, store: Store, clock: Clock) -> None:
        self.timers = Timers()
        self._settings = settings
        self._store = store
        self._clock = clock
        self._fleet = FleetWatch(store, clock, max_age_s=0)
        self._reported_key = statsd_reported_key(store.prefix, settings.sink)
        sender = statsd_sender_key(store.prefix, settings.sink)
        self.lease = Lease(store, clock, sender, new_process_id("statsd"))
        self._is_unknown = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Redis and the sink need not be there yet."""
        for loop in (self.lead_loop(), self.report_loop(), self.timers_loop()):
            task = asyncio.create_task(loop)
            task.add_done_callback(_log_failure)
            self._tasks.append(task)

    async def close(self) -> None:
        """Let another process send the gauges at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*TROUBLE):
            async with asyncio.timeout(STOP_S):
                await self.lease.give_up()

    async def lead_loop(self) -> None:
        while True:
            with contextlib.suppress(*TROUBLE):
                await self.run_lead_once()
            await self._clock.sleep(LEASE_MS / 4000)

    async def run_lead_once(self) -> None:
        """Stand for election, or go on. Raises what Redis raises."""
        was_held = self.lease.is_held
        await self.lease.run_once()
        if self.lease.is_held and not was_held:
            log.info("sends the fleet's gauges to StatsD", sink=self._settings.sink)
            # What had been buffered before anybody reported belongs to no report.
            total = _num_buffered(await self._fleet.read())
            await self._store.redis.set(self._reported_key, total, nx=True, ex=REPORTED_S)

    async def report_loop(self) -> None:
        while True:
            await self._clock.sleep(self._settings.interval_ms / 1000)
            await self.run_report_once()

    async def timers_loop(self) -> None:
        while True:
            await self.timers.has_many.wait()
            await self._send({}, self.timers.take())

    async def run_report_once(self) -> None:
        """The timers since the last time, and the fleet's gauges if they are this process's to send."""
        gauges: dict[str, int] = {}
        if self.lease.is_held:
            reading = await self._fleet.read()
            with contextlib.suppress(*TROUBLE):
                gauges = await self._gauges(reading)
        await self._send(gauges, self.timers.take())

    async def _gauges(self, reading: FleetReading) -> dict[str, int]:
        if reading.redis is None:
            return {}
        total = _num_buffered(reading)
        # One step, so that a report of whoever was elected before is not counted again.
        before = await self._store.redis.set(self._reported_key, total, ex=REPORTED_S, get=True)
        since = 0 if before is None else total - int(before)
        return {
            "requests_buffered": reading.requests_buffered,
            # Below 0: Redis has lost its counters.
            "requests_buffered_since_report": total if since < 0 else since,
            "slots_idle": reading.slots_idle,
            "slots_processing": reading.slots_processing,
            "slots_total": reading.slots_total,
            "demand": reading.demand,
            "demand_batch": reading.demand_batch,
            "agents": reading.num_agents,
            **tier_gauges(reading.pools),
        }

    async def _send(self, gauges: dict[str, int], timers: list[tuple[str, float]]) -> None:
        if not gauges and not timers:
            return
        # Each time: the sink may have moved, and a name that cannot be resolved now may be known later.
        address = self._settings.addr
        try:
            found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            if not self._is_unknown:
                log.warning("the sink of StatsD cannot be found, trying again", address=str(address), error=str(error))
            self._is_unknown = True
            return
        self._is_unknown = False
        family, _, _, _, where = found[0]
        await asyncio.to_thread(_send, str(where[0]), address.port, family, self._settings.prefix, gauges, timers)


def _send(
    ip: str, port: int, family: int, prefix: str, gauges: dict[str, int], timers: list[tuple[str, float]]
) -> None:
    """What cannot be sent the library passes over."""
    client: Any = StatsClient(ip, port, prefix, maxudpsize=MAX_PACKET, ipv6=family == socket.AF_INET6)
    try:
        with client.pipeline() as pipe:
            for name, value in gauges.items():
                pipe.gauge(name, value)
            for name, ms in timers:
                pipe.timing(name, ms)
    finally:
        client.close()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("reporting to StatsD has failed and is over", exc_info=error)


def _num_buffered(reading: FleetReading) -> int:
    """How many requests have had to wait since the pools began."""
    return sum(pool.counters.get("buffered", 0) for pool in reading.pools)
