"""Whether a request may join the buffer, and when a refused client should come back.

Three bounds, in this order: a tenant's share of the buffer, the number waiting, and the estimated wait. Nothing is
refused while a slot is free. Without a measured rate (no agent yet) there is no estimate, and only the numbers bound:
the buffer is what holds requests while agents start. `store/lua/submit.lua` decides the same; a test holds the two
together.
"""

from __future__ import annotations

import math
from enum import StrEnum

from msgspec import Struct

MAX_BATCH_BUFFERED = 100_000
MIN_RETRY_AFTER_S = 1
MAX_RETRY_AFTER_S = 120
UNKNOWN_RETRY_AFTER_S = 10  # no rate is known: about the default --buffered-request-timeout


class Limits(Struct, frozen=True, kw_only=True):
    """`max_buffered` bounds `interactive` and `normal` together, `max_batch_buffered` batch and background requests.

    `max_wait_ms` is the start deadline that an estimated wait must not exceed, None for none. `tenant_share` is the
    part of the buffer that one tenant may fill, 1 for all of it."""

    max_buffered: int = 30
    max_batch_buffered: int = MAX_BATCH_BUFFERED
    max_wait_ms: int | None = None
    tenant_share: float = 1.0


class Load(Struct, frozen=True, kw_only=True):
    """What a request would join. All but the slots is of its own side of the buffer (`is_batch` or not).

    `num_tokens` is the expected cost (`fairness.cost`) of what waits already: neither of what runs, as a slot is free
    when one running request ends, not when all do, nor of the request itself, whose wait ends when it begins.
    `tokens_per_s` is what the fleet settles of such cost per second with every slot busy, 0 while that was never
    measured."""

    num_waiting: int
    num_waiting_of_tenant: int
    num_free_slots: int
    num_tokens: int
    tokens_per_s: float


class Refusal(StrEnum):
    """`TENANT_SHARE` is the tenant's own doing (429); the others are the fleet's state (503)."""

    TENANT_SHARE = "tenant_share"
    BUFFER_FULL = "buffer_full"
    WAIT_TOO_LONG = "wait_too_long"


class Admitted(Struct, frozen=True):
    """`estimated_wait_ms` is None while no rate is known."""

    estimated_wait_ms: int | None


class Refused(Struct, frozen=True):
    reason: Refusal
    retry_after_s: int

    @property
    def status(self) -> int:
        return 429 if self.reason is Refusal.TENANT_SHARE else 503


Admission = Admitted | Refused


def estimated_wait_ms(load: Load) -> int | None:
    """How long a request that joins now waits for a slot: tokens before it over the measured rate of the fleet."""
    if load.num_free_slots > 0:
        return 0
    if load.tokens_per_s <= 0:
        return None
    return math.ceil(load.num_tokens * 1000 / load.tokens_per_s)


def retry_after_s(wait_ms: int | None) -> int:
    """`Retry-After` for an estimated wait, `MIN_RETRY_AFTER_S` to `MAX_RETRY_AFTER_S`."""
    if wait_ms is None:
        return UNKNOWN_RETRY_AFTER_S
    return min(max(math.ceil(wait_ms / 1000), MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)


def tenant_max(max_waiting: int, tenant_share: float) -> int:
    """How many requests of one tenant may wait on a side that holds `max_waiting`; 0 for as many as fit."""
    share = max(math.floor(tenant_share * max_waiting), 1)
    return share if share < max_waiting else 0


def admit(load: Load, limits: Limits, *, is_batch: bool) -> Admission:
    """Batch and background requests have no start deadline, so no wait is too long for them."""
    wait_ms = estimated_wait_ms(load)
    if load.num_free_slots > 0:
        return Admitted(wait_ms)
    max_waiting = limits.max_batch_buffered if is_batch else limits.max_buffered
    share = tenant_max(max_waiting, limits.tenant_share)
    if share and load.num_waiting_of_tenant >= share:
        return Refused(Refusal.TENANT_SHARE, retry_after_s(wait_ms))
    if load.num_waiting >= max_waiting:
        return Refused(Refusal.BUFFER_FULL, retry_after_s(wait_ms))
    if not is_batch and limits.max_wait_ms is not None and wait_ms is not None and wait_ms > limits.max_wait_ms:
        return Refused(Refusal.WAIT_TOO_LONG, retry_after_s(wait_ms))
    return Admitted(wait_ms)
