"""Loops that outlive trouble with Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from redis.exceptions import ResponseError

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE

log = get_logger(__name__)

RETRY_S = 0.1
MAX_RETRY_S = 1.0


async def repeat(once: Callable[[], Awaitable[None]], clock: Clock, *, on_trouble: Callable[[], None]) -> NoReturn:
    """Call `once` for ever. A refusal is waited out shortly; lost connections are, with backoff, after `on_trouble`."""
    delay = RETRY_S
    while True:
        try:
            await once()
            delay = RETRY_S
        except ResponseError as error:
            # The lane is gone (reaped, or Redis forgot it): the next renewal finds out and registers again.
            log.debug("refused by Redis", error=str(error))
            await clock.sleep(RETRY_S)
        except TROUBLE as error:
            on_trouble()
            log.warning("Redis trouble, trying again", error=str(error))
            await clock.sleep(delay)
            delay = min(delay * 2, MAX_RETRY_S)
