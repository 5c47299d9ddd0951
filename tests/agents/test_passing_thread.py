"""Work in a thread that is gone afterwards."""

from __future__ import annotations

import asyncio
import threading

import pytest

from paddler.testing.waiting import wait_until
from workers.agent.passing_thread import in_passing_thread

pytestmark = pytest.mark.anyio


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def test_it_gives_what_the_work_gives_and_is_gone() -> None:
    async def is_gone() -> bool:
        return "passing" not in names()

    assert await in_passing_thread(lambda: threading.current_thread().name) == "passing"
    assert await in_passing_thread(lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        await in_passing_thread(lambda: 1 / 0)
    await wait_until(is_gone)


async def test_one_that_nobody_waits_for_any_more_goes_on() -> None:
    go_on, is_done = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(10)
        is_done.set()

    waiting = asyncio.create_task(in_passing_thread(work))
    await wait_until(lambda: "passing" in names())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await asyncio.to_thread(is_done.wait, 10)
