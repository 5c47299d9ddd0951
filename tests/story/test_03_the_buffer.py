"""The queue is the buffer: what no slot can take waits in Redis, in order, where everybody can count it."""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI
from story_harness import Queue, Told

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

NUM_TOKENS = 40


async def test_eight_streams_on_four_slots(client: AsyncOpenAI, queue: Queue) -> None:
    """Four run at once, four wait. An agent takes a request only when it has a free slot, so what waits belongs to
    nobody: the buffer is one stream, and its `XLEN` is how many there are."""
    told = [Told() for _ in range(8)]
    clients = [
        asyncio.create_task(one.ask(client, "Tell me a long story about the sea.", max_tokens=NUM_TOKENS, seed=number))
        for number, one in enumerate(told)
    ]

    async def four_run_and_four_wait() -> bool:
        return await queue.redis.xlen("paddler:{default}:buffer") == 4 and sum(bool(one.text) for one in told) == 4

    await wait_until(four_run_and_four_wait, timeout_s=30, what="four streams run and four wait")
    assert await queue.num_given() == 4
    assert await queue.demand() == 8

    most_given = 0

    async def all_are_done() -> bool:
        nonlocal most_given
        most_given = max(most_given, await queue.num_given())
        return all(task.done() for task in clients)

    await wait_until(all_are_done, timeout_s=60, what="all eight are complete")
    await asyncio.gather(*clients)
    assert most_given == 4
    assert [one.finish_reasons for one in told] == [["length"]] * 8
    assert [one.completion_tokens for one in told] == [NUM_TOKENS] * 8
    assert len({one.text for one in told}) == 8
    assert await queue.redis.xlen("paddler:{default}:buffer") == 0
    assert await queue.demand() == 0
