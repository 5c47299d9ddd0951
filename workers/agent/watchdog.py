"""A step that does not come back: it is interrupted, and if that does not help the process ends.

The lease ends by itself when the engine does not move, but then the process would sit there with its slots for ever,
and its requests wait for that lease. A step is bounded to a fraction of a second, so a minute is no slow one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from paddler.clock import Clock
from paddler.engine import Engine
from paddler.logs import get_logger
from workers.agent.engine_thread import EngineThread

log = get_logger(__name__)

FIRST_FACTOR = 5
"""The first step may take so many times longer: weights come from the disk, kernels are compiled."""
LOOKS = 20
"""In the limit."""
MIN_LOOK_S, MAX_LOOK_S = 0.01, 1.0
GRACE_S = 5.0
"""For an interrupted step to come back; no longer than the limit."""
GIVE_UP_S = 2.0


class EngineHangs(Exception):
    """The engine does not come back, and no interruption helps; the process must end."""


class Watchdog:
    """Looks at the rounds of the engine's thread. `limit_s` 0: not at all.

    A step is interrupted once. If it does not come back, or the next one, which repeats it, hangs as well, that is the
    end: `give_up` is awaited (it hands the requests to others) and `EngineHangs` raised."""

    def __init__(
        self, thread: EngineThread, clock: Clock, give_up: Callable[[], Awaitable[None]], limit_s: float
    ) -> None:
        self._thread = thread
        self._engine: Engine = thread.engine
        self._clock = clock
        self._give_up = give_up
        self._limit_s = limit_s
        self._look_s = min(max(limit_s / LOOKS, MIN_LOOK_S), MAX_LOOK_S)
        self._round = -1
        self._since = 0.0
        self._interrupted: int = -2
        """The round that was interrupted last."""

    async def run(self) -> None:
        """Watch until the engine hangs. Raises `EngineHangs`."""
        if self._limit_s <= 0:
            await asyncio.Event().wait()
        while True:
            await self.run_look_once()
            await self._clock.sleep(self._look_s)

    async def run_look_once(self) -> None:
        """One look. Raises `EngineHangs`."""
        now, number = self._clock.monotonic(), self._thread.num_rounds
        if not self._thread.is_stepping or number != self._round:
            self._round, self._since = number, now
            return
        hung_s = now - self._since
        if number == self._interrupted:
            if hung_s > min(GRACE_S, self._limit_s):
                await self._end("and does not come back when interrupted", number)
        elif hung_s > self._limit_s * (1 if self._thread.num_steps else FIRST_FACTOR):
            if self._interrupted == number - 1:
                await self._end("again, after it was interrupted", number)
            log.error("a step hangs; interrupting it", seconds=round(hung_s, 1), round=number)
            self._interrupted, self._since = number, now
            self._engine.interrupt()

    async def _end(self, how: str, number: int) -> None:
        log.critical("the engine hangs; this process ends, and its requests go on elsewhere", how=how, round=number)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await self._give_up()
        except Exception as error:
            log.warning("could not let go of the requests; the lease will end by itself", error=str(error))
        raise EngineHangs(f"a step hangs, {how}")
