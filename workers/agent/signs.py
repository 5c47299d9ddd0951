"""Saying that a job goes on which has nothing to show yet."""

from __future__ import annotations

from collections.abc import Iterable

from paddler.engine import Job, Working
from workers.agent.sequence import Sequence

SIGN_S = 5.0
"""A long prompt or input on a slow CPU, or one that waits in its slot for another's cells, may take longer than a
balancer waits for a sign of life (`--inference-item-timeout`)."""


def silent(started: Iterable[Job], sequences: Iterable[Sequence]) -> list[str]:
    """Who has more to compute before its next word, and can: of a hanging encoder its request's end is to tell. By
    request; `started` are those that are not tokens yet."""
    waiting = [job.request_id for job in started]
    for sequence in sequences:
        is_silent = not sequence.is_prefilled or sequence.work.num_pending > 1
        if is_silent and not sequence.work.is_waiting:
            waiting.append(sequence.job.request_id)
    return waiting


class SignsOfLife:
    """`look` after every step, at the jobs that have said nothing yet."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}

    def look(self, silent: Iterable[str], now: float) -> list[Working]:
        """A sign for each that has been silent for `SIGN_S` since it was first seen here, or since its last sign."""
        self._said_at = {request_id: self._said_at.get(request_id, now) for request_id in silent}
        due = [request_id for request_id, said_at in self._said_at.items() if now - said_at >= SIGN_S]
        self._said_at.update(dict.fromkeys(due, now))
        return [Working(request_id) for request_id in due]
