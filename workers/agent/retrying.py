"""Loops that outlive trouble with Redis."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

from redis.exceptions import OutOfMemoryError

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, is_refusal
from paddler.store.remedies import remedy_for

log = get_logger(__name__)

RETRY_S = 0.1
MAX_RETRY_S = 1.0
JITTER = 0.5


async def repeat(once: Callable[[], Awaitable[None]], clock: Clock, *, on_trouble: Callable[[], None]) -> NoReturn:
    """Call `once` for ever. A refusal is waited out shortly, a full Redis with backoff and jitter; lost connections and
    a failover are, too, after `on_trouble`.

    A full Redis is no trouble in that sense: it goes on renewing leases, so whoever does not renew is lost."""
    delay = RETRY_S
    while True:
        try:
            await once()
            delay = RETRY_S
            continue
        except TROUBLE as error:
            if is_refusal(error) and not isinstance(error, OutOfMemoryError):
                # The lane is gone (reaped, or Redis forgot it): the next renewal finds out and registers again.
                log.debug("refused by Redis", error=str(error))
                await clock.sleep(RETRY_S)
                continue
            if not isinstance(error, OutOfMemoryError):
                on_trouble()
            log.warning("Redis trouble, trying again", error=str(error), remedy=remedy_for(error))
        await clock.sleep(delay * (1 + JITTER * random.random()))
        delay = min(delay * 2, MAX_RETRY_S)
