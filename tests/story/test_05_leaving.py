"""A client that goes away frees what it held, wherever its request is: waiting, in prefill, in decode.

There is no call for it. A closed connection is enough, so a stopped browser tab or a crashed client costs nothing more.
"""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI
from story_harness import SCRIPTED, CommandFleet, Queue, asking

from paddler.testing.waiting import wait_until
from paddler.wire.balancer import FinishReason

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_while_it_waits(patient: AsyncOpenAI, fleet_queue: Queue) -> None:
    """It leaves the buffer at once: there is no agent here that could have looked after it."""
    asking_in_vain = asyncio.create_task(
        patient.chat.completions.create(model="default", messages=asking("hi"), stream=True)
    )
    await wait_until(fleet_queue.num_waiting)
    asking_in_vain.cancel()
    await wait_until(fleet_queue.is_empty, timeout_s=2)
    assert await fleet_queue.num_waiting() == 0


async def test_while_the_prompt_is_computed(client: AsyncOpenAI, queue: Queue) -> None:
    """Prefill of a long prompt takes seconds, but in chunks of a fifth of a second, and between two of them the agent
    looks up. So the slot is free long before the prompt would have been computed."""
    prompt = "Once upon a time there was a queue. " * 700
    reading = asyncio.create_task(client.chat.completions.create(model="default", messages=asking(prompt), stream=True))

    async def is_running() -> set[str]:
        return await queue.requests("running")

    (request_id,) = await wait_until(is_running, timeout_s=30, what="the prompt is being computed")
    reading.cancel()
    await wait_until(queue.is_empty, timeout_s=3, what="the slot is free")
    assert await queue.num_given() == 0
    end = await queue.end(request_id)
    assert end.reason is FinishReason.CANCELLED
    assert end.usage.completion_tokens == 0


async def test_while_tokens_come(client: AsyncOpenAI, queue: Queue) -> None:
    """With a model on four slots: the others go on, and the journal says how little was computed for nobody."""
    stream = await client.chat.completions.create(
        model="default", messages=asking("Tell me a very long story."), max_tokens=2000, stream=True
    )
    num_read = 0
    async for chunk in stream:
        num_read += bool(chunk.choices[0].delta.content)
        if num_read == 5:
            break
    (request_id,) = await queue.requests("running")
    await stream.close()
    await wait_until(queue.is_empty, timeout_s=3, what="the slot is free")
    assert (await queue.end(request_id)).reason is FinishReason.CANCELLED
    assert await queue.num_tokens(request_id) < 100


async def test_at_most_one_more_step_is_done_for_nobody(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Steps of half a second show it: the client leaves after the third token, while the fourth is being made, and a
    fifth is never begun. The only slot is free then, and serves the next one."""
    await fleet.agent("slow", *SCRIPTED, "--slots", "1", "--scripted-step", "500")
    stream = await patient.chat.completions.create(
        model="default", messages=asking("[[tokens=1000]]"), max_tokens=1000, stream=True
    )
    num_read = 0
    async for chunk in stream:
        num_read += bool(chunk.choices[0].delta.content)
        if num_read == 3:
            break
    (request_id,) = await fleet_queue.requests("running")
    await stream.close()
    after = await patient.chat.completions.create(model="default", messages=asking("[[say=.]]"))
    assert after.choices[0].message.content == "."
    assert (await fleet_queue.end(request_id)).usage.completion_tokens <= num_read + 1
