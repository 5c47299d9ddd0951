"""Stopping to follow requests that nobody reads any more (life of a request, step 9)."""

from __future__ import annotations

import asyncio

from paddler.clock import Clock
from paddler.ids import pool_of
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.inbox import Inbox
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store, is_refusal
from paddler.store.results import Cancelled

log = get_logger(__name__)

UNSURE_S = 30.0
RETRY_S = 0.1
MAX_RETRY_S = 2.0


class Leaving:
    """Each request is told of until Redis has heard it: a foreground one that nobody else follows is cancelled then."""

    def __init__(self, store: Store, clock: Clock, inbox: Inbox) -> None:
        self._store = store
        self._clock = clock
        self._inbox = inbox
        self._queue: asyncio.Queue[tuple[str, bool, bool]] = asyncio.Queue()

    def leave(self, request_id: str, *, is_unsure: bool = False, may_come_back: bool = False) -> None:
        """`is_unsure`: its submission may still arrive. A large one goes over a connection of its own, where this
        overtakes it, and would run for nobody.

        `may_come_back`: its client was told to try again. It is not cancelled, as this may be late, when the client
        follows it again already; one that does not come back has left an orphan."""
        self._queue.put_nowait((request_id, is_unsure, may_come_back))

    async def join(self, timeout_s: float) -> None:
        """Wait until Redis has heard of everything left so far, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            log.warning("requests that were left could not be cancelled; the worker does it when they are orphans")

    async def leave_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._stop_following(*await self._queue.get()))

    async def remind_loop(self) -> None:
        """Step 12: a Redis that crashed may run again what this balancer had already seen to its end."""
        while True:
            self.leave(await self._inbox.forgotten.get())

    async def _stop_following(self, request_id: str, is_unsure: bool, may_come_back: bool) -> None:
        pool = self._store.pool(pool_of(request_id))
        unsure_until = self._clock.monotonic() + UNSURE_S
        delay = RETRY_S
        try:
            # Somebody follows it here again since: it is not ours to leave any more.
            while not self._inbox.is_open(request_id):
                try:
                    outcome = await pool.cancel(
                        request_id, CANCELLED_FRAME, leaving_inbox=self._inbox.channel, may_come_back=may_come_back
                    )
                except TROUBLE as error:
                    if is_refusal(error):
                        log.warning("cannot cancel a request", request=request_id, error=str(error))
                        return
                    unsure_until = self._clock.monotonic() + UNSURE_S
                else:
                    if outcome is not Cancelled.GONE or not is_unsure or self._clock.monotonic() >= unsure_until:
                        log.debug("stopped following", request=request_id, outcome=outcome)
                        return
                await self._clock.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_S)
        finally:
            self._queue.task_done()
