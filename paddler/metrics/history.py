"""The last 15 minutes of the fleet, for charts: taken every two seconds by one balancer, kept in Redis for all.

history = History(store)
keeper = HistoryKeeper(history, FleetWatch(store, clock), store, clock)   # in each balancer with a panel
keeper.start() ... await keeper.close()
samples = await history.since(b"")                                        # all there are
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from paddler.clock import Clock
from paddler.ids import new_process_id
from paddler.jobs.overview import PoolQueue
from paddler.logs import get_logger
from paddler.metrics.fleet import FleetReading, FleetWatch
from paddler.metrics.lease import Lease
from paddler.store.client import TROUBLE, Store
from paddler.store.panel_keys import HISTORY_S, MAX_SAMPLES, SAMPLE_S, history_key, sampler_key

SPREAD_S = 10.0
"""Tokens are counted when their request ends; over so long that comes to a rate."""
GOODBYE_S = 0.3

log = get_logger(__name__)


class Sample(Struct, frozen=True, kw_only=True):
    """One pool at one time. `tokens_per_second` is the mean of the last `SPREAD_S`, of requests that ended in them."""

    pool: str
    buffered: int
    demand: int
    oldest_wait_ms: int
    slots_processing: int
    slots_total: int
    tokens_per_second: float


class TimedSample(Sample, frozen=True, kw_only=True):
    """`at_ms` is since the epoch, by Redis's clock."""

    at_ms: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Sample])


def sample_of(pool: PoolQueue, tokens_per_second: float) -> Sample:
    return Sample(
        pool=pool.pool,
        buffered=sum(pool.waiting.values()),
        demand=pool.demand,
        oldest_wait_ms=pool.oldest_wait_ms or 0,
        slots_processing=sum(min(lane.requests, lane.slots) for lane in pool.lanes),
        slots_total=sum(lane.slots for lane in pool.lanes),
        tokens_per_second=round(tokens_per_second, 1),
    )


class TokenRate:
    """Tokens per second by pool, from counters that only grow."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, Mapping[str, int]]] = []

    def add(self, now: float, totals: Mapping[str, int]) -> dict[str, float]:
        """`totals` are of now, in seconds of any clock. A counter that fell was lost by Redis: it begins anew."""
        self._seen.append((now, totals))
        while len(self._seen) > 2 and self._seen[1][0] <= now - SPREAD_S:
            self._seen.pop(0)
        begun, before = self._seen[0]
        if now <= begun:
            return dict.fromkeys(totals, 0.0)
        return {
            pool: max(0, total - before.get(pool, total)) / max(now - begun, SPREAD_S) for pool, total in totals.items()
        }


class History:
    """Every method raises what Redis raises."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._key = history_key(store.prefix)

    async def add(self, samples: list[Sample]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.xadd(self._key, {"s": _encoder.encode(samples)}, maxlen=MAX_SAMPLES, approximate=False)
        pipe.expire(self._key, HISTORY_S)
        await pipe.execute()

    async def since(self, entry: bytes) -> tuple[bytes, list[TimedSample]]:
        """What came behind an entry, all for an empty one, with the last entry's name. What another version wrote and
        this one cannot read is left out."""
        begin = b"(" + entry if entry else b"-"
        found: list[tuple[bytes, dict[bytes, bytes]]] = await self._redis.xrange(self._key, begin, b"+")
        samples: list[TimedSample] = []
        for name, fields in found:
            with contextlib.suppress(msgspec.MsgspecError):
                at_ms = int(name.partition(b"-")[0])
                read = _decoder.decode(fields.get(b"s", b"[]"))
                samples += [TimedSample(at_ms=at_ms, **msgspec.structs.asdict(one)) for one in read]
        return (found[-1][0] if found else entry), samples


class HistoryKeeper:
    """Takes the samples while it is the one elected to. `start` before use, `close` after."""

    def __init__(self, history: History, fleet: FleetWatch, store: Store, clock: Clock) -> None:
        self._history = history
        self._fleet = fleet
        self._clock = clock
        self._rate = TokenRate()
        self._task: asyncio.Task[None] | None = None
        self.lease = Lease(store, clock, sampler_key(store.prefix), new_process_id("panel"))

    def start(self) -> None:
        """Redis need not be there yet."""
        self._task = asyncio.create_task(self.keep_loop())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError, *TROUBLE):
            async with asyncio.timeout(GOODBYE_S):
                await self.lease.give_up()

    async def keep_loop(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.run_once()
            except TROUBLE as error:
                log.debug("cannot keep the history of the charts", error=str(error))
            except Exception as error:
                log.error("cannot keep the history of the charts", exc_info=error)
            await self._clock.sleep(SAMPLE_S)

    async def run_once(self) -> None:
        """Raises what Redis raises."""
        await self.lease.run_once()
        if not self.lease.is_held:
            self._rate = TokenRate()  # what was counted before somebody else was elected says nothing of now
            return
        reading = await self._fleet.read()
        if not self.lease.is_held or reading.redis is None:
            return
        await self._history.add(self.samples(reading))

    def samples(self, reading: FleetReading) -> list[Sample]:
        totals = {pool.pool: pool.counters.get("output_tokens", 0) for pool in reading.pools}
        rates = self._rate.add(self._clock.monotonic(), totals)
        return [sample_of(pool, rates[pool.pool]) for pool in reading.pools]
