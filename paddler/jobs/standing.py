"""What admission let a request pass: how many may wait, how many more could, and when those that wait will have begun.

As known when it was submitted, up to a second old.
"""

from __future__ import annotations

import asyncio
import contextlib
import math

from msgspec import Struct

from paddler.jobs.fleet_view import PoolView
from paddler.store.client import TROUBLE, Store
from paddler.store.results import Admission, Submission, Submitted


class Standing(Struct, frozen=True):
    """`limit` is how many requests may wait: of the tenant where its share bounds it, else of all. `reset_ms` is when
    all of them will have begun at the measured rate, None when nobody has measured."""

    limit: int
    remaining: int
    reset_ms: int | None


async def num_waiting_of_tenant(store: Store, pool: str, submission: Submission) -> int | None:
    """None where no share bounds it, or Redis does not tell within a second."""
    if submission.tenant_max_waiting:
        key = store.pool(pool).keys.queued(submission.side, submission.tenant)
        with contextlib.suppress(*TROUBLE):
            async with asyncio.timeout(1.0):
                return int(await store.redis.scard(key))
    return None


def standing_of(
    submission: Submission, submitted: Submitted, view: PoolView, num_waiting_of_tenant: int | None
) -> Standing:
    """`num_waiting_of_tenant` None: no share bounds the tenant."""
    side = submission.side
    least = submitted.number + 1 if submitted.admission is Admission.WAITING else 0
    num_waiting = max(view.waiting.get(side, 0), least)
    limit, remaining = submission.max_waiting, submission.max_waiting - num_waiting
    if submission.tenant_max_waiting and num_waiting_of_tenant is not None:
        limit = submission.tenant_max_waiting
        remaining = min(remaining, limit - num_waiting_of_tenant)
    reset_ms = 0 if not num_waiting else None
    if num_waiting and view.rate:
        reset_ms = math.ceil(view.backlog.get(side, 0) * 1000 / view.rate)
    return Standing(limit, max(0, remaining), reset_ms)
