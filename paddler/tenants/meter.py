"""Limits of API keys, as a balancer keeps them: reserved before a request is submitted, put right when it ends.

1. *Reserve* (`reserve.lua`), by estimate and for `SUBMIT_HOLD_MS`: what a balancer that dies now has reserved is free
   again then.
2. *Submitted* or *refused* (`adjust.lua`). What was submitted ends some time, in a script that says so in its pool's
   stream `used`, whoever lives then; so it is held until that is accounted, for `RUN_HOLD_MS` at most.
3. *Ended* (`adjust.lua`): the balancer that follows it gives back at once its place and the tokens that it did not
   need. It goes over the connection that the client's next request will go over, so that this finds the place free.
4. *Account* (`account.lua`, `accounting.py`): once for each request, also where its balancer has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from typing import Any

from paddler.errors import BudgetExhausted, PaddlerError, RateLimited, TooManyInFlight
from paddler.store.client import TROUBLE, Store
from paddler.store.scripts_tenants import Reserved, Verdict
from paddler.tenants.account import Account
from paddler.tenants.records import ApiKey
from paddler.wire.balancer import Usage

SUBMIT_HOLD_MS = 30_000
RUN_HOLD_MS = 86_400_000
JOIN_S = 1.0
"""How long a balancer that stops waits for what it has to say of its last requests."""


class Meter:
    def __init__(self, store: Store) -> None:
        self.scripts = store.tenant_scripts
        self._tasks: set[asyncio.Task[None]] = set()

    async def reserve(
        self, account: Account, request_id: str, *, tokens: int, num_parts: int, is_batch: bool = False
    ) -> Reservation:
        """Charge a request of so many tokens, by estimate, to its key. `num_parts` as in `TenantScripts.reserve`.
        Lines of a batch have the limit of a day alone: they run when there is time.

        Raises `RateLimited`, `TooManyInFlight`, `BudgetExhausted`, and what Redis raises."""
        key, limits = account.key, account.key.limits
        reserved = await self.scripts.reserve(
            key.tenant,
            key.id,
            request_id,
            tokens=tokens,
            num_parts=num_parts,
            requests_per_minute=0 if is_batch else limits.requests_per_minute or 0,
            tokens_per_minute=0 if is_batch else limits.tokens_per_minute or 0,
            max_in_flight=0 if is_batch else limits.max_in_flight or 0,
            daily_tokens=limits.daily_tokens or 0,
            hold_ms=SUBMIT_HOLD_MS,
        )
        account.standing = reserved
        if reserved.verdict not in (Verdict.OK, Verdict.KNOWN):
            raise _refusal(key, reserved, tokens * max(num_parts, 1))
        is_new = reserved.verdict is Verdict.OK
        return Reservation(self, key, request_id, is_new=is_new, counts=num_parts > 0)

    def send(self, work: Coroutine[Any, Any, object]) -> None:
        """Say something that nobody waits for."""
        task = asyncio.create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=JOIN_S)
        for task in self._tasks:
            task.cancel()


class Reservation:
    """What one request holds of its key's limits; without a meter nothing. Nothing it does raises or waits."""

    def __init__(self, meter: Meter | None, key: ApiKey | None, request_id: str, *, is_new: bool, counts: bool) -> None:
        """`is_new` False: an earlier submission of this very request holds it. `counts`: as a request."""
        self._meter = meter
        self._key = key
        self._request_id = request_id
        self._is_new = is_new
        self._counts = counts

    def submitted(self) -> None:
        self._adjust("submitted", RUN_HOLD_MS)

    def refused(self) -> None:
        """It is not in the queue."""
        if self._is_new:
            self._adjust("refused", int(self._counts))

    def ended(self, usage: Usage | None) -> None:
        """None: only who accounts it knows."""
        self._adjust("ended", -1 if usage is None else usage.prompt_tokens + usage.completion_tokens)

    def _adjust(self, what: str, number: int) -> None:
        if self._meter is not None and self._key is not None:
            per_minute = self._key.limits.requests_per_minute or 0
            adjust = self._meter.scripts.adjust
            tenant, key_id = self._key.tenant, self._key.id
            self._meter.send(adjust(tenant, key_id, self._request_id, what, number, requests_per_minute=per_minute))


NOTHING = Reservation(None, None, "", is_new=False, counts=False)


async def _quietly(work: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(*TROUBLE):
        await work


def _refusal(key: ApiKey, reserved: Reserved, tokens: int) -> PaddlerError:
    seconds = max(1, math.ceil(reserved.wait_ms / 1000))
    limits = key.limits
    match reserved.verdict:
        case Verdict.REQUESTS:
            words = f"This API key may send {limits.requests_per_minute} requests a minute; try again in {seconds} s."
            return RateLimited(words, retry_after_s=seconds)
        case Verdict.TOKENS:
            words = (
                f"This API key may use {limits.tokens_per_minute} tokens a minute, and {reserved.tokens_left} are left "
                f"of the {tokens} that this needs by estimate; try again in {seconds} s."
            )
            return RateLimited(words, retry_after_s=seconds)
        case Verdict.IN_FLIGHT:
            words = f"{limits.max_in_flight} requests of this API key wait or run, as many as it may have at once."
            return TooManyInFlight(words, retry_after_s=seconds)
        case _:
            words = (
                f"This API key may use {limits.daily_tokens} tokens a day (UTC), and too few are left for the {tokens} "
                f"that this needs by estimate; the next day begins in {seconds} s."
            )
            return BudgetExhausted(words, retry_after_s=seconds)
