"""Following something in Redis that tells of its changes on a channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import msgspec

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store

log = get_logger(__name__)

POLL_S = 15.0
"""Pub/sub may lose a change; so late it is noticed then."""
RETRY_S = 1.0

T = TypeVar("T")


async def follow(
    store: Store, channel: str, read: Callable[[], Awaitable[T]], clock: Clock, *, what: str
) -> AsyncGenerator[T, None]:
    """What `read` finds, then whenever that has changed; changes that follow each other quickly are one. Goes on when
    Redis is back. Close it (`contextlib.aclosing`), or it listens on until it is collected. `what` is for the log."""
    news = asyncio.Event()
    listening = asyncio.create_task(_listen(store, channel, news, clock))
    last: list[T] = []
    said = ""
    try:
        while True:
            news.clear()
            try:
                found = await read()
            except (msgspec.MsgspecError, *TROUBLE) as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("cannot read what is followed", what=what, channel=channel, error=said)
                await clock.sleep(RETRY_S)
                continue
            said = ""
            # Not only upwards: a Redis that has crashed may have forgotten the last version.
            if [found] != last:
                last = [found]
                yield found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await news.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _listen(store: Store, channel: str, news: asyncio.Event, clock: Clock) -> None:
    while True:
        with contextlib.suppress(*TROUBLE):
            # What changed before the subscription is found by reading once more.
            await store.listen(channel, on_subscribed=news.set, on_message=lambda _: news.set())
        await clock.sleep(RETRY_S)
