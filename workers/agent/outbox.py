"""Sending what the engine produced (life of a request, steps 6 and 7): one emit for all streams that have something
new, one settle for each that ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE
from paddler.store.results import Disposition, Emission, Placed
from paddler.store.scripts import PoolScripts
from workers.agent.membership import Membership
from workers.agent.running import Running

log = get_logger(__name__)


async def gather_all(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Let all end, then raise the first error."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


class Outbox:
    """`put` what has news; `run_once` sends it. While a call is under way, further tokens gather for the next.

    A request's first frame and its last are sent at once, and so is any token that comes `flush_s` or more after the
    frame before: only an engine that is faster than that has its tokens gathered."""

    def __init__(
        self,
        pool: PoolScripts,
        membership: Membership,
        clock: Clock,
        *,
        flush_s: float,
        before_release: Callable[[], Awaitable[None]],
        on_settled: Callable[[Running, int], None],
        on_dropped: Callable[[Running], None],
        on_cancelled: Callable[[Running], None],
    ) -> None:
        self._pool = pool
        self._membership = membership
        self._clock = clock
        self._flush_s = flush_s
        self._timer: asyncio.TimerHandle | None = None
        self._before_release = before_release
        self._on_settled = on_settled
        self._on_dropped = on_dropped
        self._on_cancelled = on_cancelled
        self._dirty: dict[str, Running] = {}
        self._has_news = asyncio.Event()

    def put(self, running: Running) -> None:
        self._dirty[running.request_id] = running
        self._has_news.set()

    async def run_once(self) -> None:
        """Raises what Redis raises; the same bytes are sent again then, which changes nothing if they had arrived."""
        await self._has_news.wait()
        self._has_news.clear()
        dirty = self._take_due()
        try:
            await self._send([running for running in dirty.values() if not running.is_dropped])
        except TROUBLE:
            self._dirty = dirty | self._dirty
            self._has_news.set()
            raise

    def _take_due(self) -> dict[str, Running]:
        now = self._clock.monotonic()
        due: dict[str, Running] = {}
        later: dict[str, Running] = {}
        for key, running in self._dirty.items():
            is_due = running.is_over or running.is_dropped or now - running.sent_at >= self._flush_s
            (due if is_due else later)[key] = running
        self._dirty = later
        if later and self._timer is None:
            first = min(running.sent_at for running in later.values())
            self._timer = asyncio.get_running_loop().call_later(first + self._flush_s - now, self._ring)
        return due

    def _ring(self) -> None:
        self._timer = None
        self._has_news.set()

    async def _send(self, dirty: list[Running]) -> None:
        now = self._clock.monotonic()
        emits: list[tuple[Running, Emission]] = []
        settles: list[tuple[Running, Emission]] = []
        for running in dirty:
            emission = running.emission()
            if emission is not None:
                running.sent_at = now
                (settles if running.is_last else emits).append((running, emission))
        agent_id = self._membership.agent_id
        calls = [self._settle(agent_id, running, emission) for running, emission in settles]
        if emits:
            calls.append(self._emit(agent_id, emits))
        if len(calls) == 1:
            await calls[0]
        else:
            await gather_all(calls)
        for running in dirty:
            if running.is_preempted and running.is_confirmed and not running.is_dropped:
                await self._before_release()
                fresh = running.is_fresh
                await self._pool.release(agent_id, running.request_id, running.attempt, is_fresh=fresh)
                self._on_settled(running, 0)

    async def _emit(self, agent_id: str, emits: list[tuple[Running, Emission]]) -> None:
        answers = await self._pool.emit(agent_id, [emission for _, emission in emits])
        for (running, _), placed in zip(emits, answers, strict=True):
            self._placed(running, placed)

    async def _settle(self, agent_id: str, running: Running, emission: Emission) -> None:
        assert running.outcome is not None
        placed = await self._pool.settle(agent_id, emission, running.outcome, running.usage)
        if placed.disposition is Disposition.OK:
            self._on_settled(running, placed.steal_after_ms)
        else:
            self._placed(running, placed)

    def _placed(self, running: Running, placed: Placed) -> None:
        match placed.disposition:
            case Disposition.OK:
                running.confirm(placed.length)
                if running.is_over:
                    self.put(running)
            case Disposition.SHORT:
                log.warning("Redis lost the end of a journal, sending it again", request=running.request_id)
                running.confirm(placed.length)
                self.put(running)
            case Disposition.CANCELLED:
                running.discard()
                if running.outcome is None:
                    self._on_cancelled(running)
                else:
                    running.end_cancelled()
                    self.put(running)
            case Disposition.FENCED | Disposition.GONE | Disposition.LONG:
                log.info("dropped a request", request=running.request_id, why=placed.disposition)
                self._on_dropped(running)
