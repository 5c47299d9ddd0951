"""A balancer notices when no worker runs, and says so: without one nothing takes care of what dead processes left."""

from __future__ import annotations

import contextlib

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store
from paddler.store.keys import WORKER_BEAT_MS, worker_key

log = get_logger(__name__)

CHECK_S = 2.0


class Watchman:
    """Logs once when the worker's sign of life has been missing for a while, and once when it is back.

    While Redis does not answer nothing is known, and the while begins anew."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._missing_since: float | None = None
        self.is_missing = False

    async def watch_loop(self) -> None:
        while True:
            with contextlib.suppress(*TROUBLE):
                await self.run_once()
            await self._clock.sleep(CHECK_S)

    async def run_once(self) -> None:
        """Raises what Redis raises."""
        try:
            is_there = await self._store.redis.exists(worker_key(self._store.prefix))
        except TROUBLE:
            self._missing_since = None
            raise
        now = self._clock.monotonic()
        if is_there:
            self._missing_since = None
            if self.is_missing:
                self.is_missing = False
                log.info("a worker runs again")
        elif self._missing_since is None:
            self._missing_since = now
        elif not self.is_missing and now - self._missing_since >= WORKER_BEAT_MS / 1000:
            self.is_missing = True
            log.warning(
                "no worker runs: requests of dead agents and balancers may stay behind, and nothing is audited; "
                "start `paddler worker`"
            )
