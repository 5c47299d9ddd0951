"""Reaping: returning the requests of lost agents to the queue (life of a request, step 10)."""

from __future__ import annotations

from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME, MAX_DEATHS
from paddler.logs import get_logger
from paddler.store.results import Reaped
from paddler.store.scripts import PoolScripts

log = get_logger(__name__)


class ReapGate:
    """Nobody reaps before having seen Redis answer without a break for one full lease.

    After an outage every lease is over, because nobody could renew: whoever reaped then would reap the fleet.
    """

    def __init__(self, lease_ms: int) -> None:
        self._lease_s = lease_ms / 1000
        self._since: float | None = None

    def answered(self, now: float) -> None:
        if self._since is None:
            self._since = now

    def failed(self) -> None:
        self._since = None

    def is_open(self, now: float) -> bool:
        return self._since is not None and now - self._since >= self._lease_s


async def reap_agent(pool: PoolScripts, agent_id: str, *, is_leaving: bool = False) -> Reaped:
    """Reap one agent; does nothing while its lease holds, unless it is leaving."""
    reaped = await pool.reap(
        agent_id, max_deaths=MAX_DEATHS, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME, is_leaving=is_leaving
    )
    if not reaped.is_alive and not is_leaving:
        log.warning(
            "reaped a lost agent",
            agent=agent_id,
            requests_returned=reaped.num_returned,
            requests_failed=reaped.num_failed,
        )
    return reaped
