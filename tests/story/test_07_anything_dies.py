"""Under `paddler up` any process may die at any moment: it is started again, and the fleet is whole without a hand.

What the client notices depends on what died. It holds a connection to the balancer, so that one it does notice; behind
the balancer there is only state that survives.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from openai import APIConnectionError, APIError, AsyncOpenAI
from story_harness import Heard, Queue, Told, asking, openai_client
from up_harness import Up

from paddler.testing.waiting import wait_until
from paddler.wire.balancer import Tokens

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

STORY = "Tell me a long story about a mountain."
NUM_TOKENS = 60


async def kill(up: Up, name: str) -> None:
    """SIGKILL a process, and wait for its successor."""
    old = up.pids()[name]
    os.kill(old, signal.SIGKILL)
    await wait_until(lambda: up.pids().get(name, old) != old, what=f"{name} is started again")


async def begin(client: AsyncOpenAI) -> tuple[Heard, asyncio.Task[Heard]]:
    told = Heard()
    telling = asyncio.create_task(told.ask(client, STORY, max_tokens=NUM_TOKENS, seed=5))
    await wait_until(lambda: len(told.text) > 20 or telling.done(), timeout_s=30, what="the story has begun")
    return told, telling


async def test_the_valkey(up: Up, client: AsyncOpenAI, queue: Queue) -> None:
    """The agent goes on computing and keeps what it cannot tell; the new server reads the queue from its append-only
    file, and the stream goes on where it stopped: the client has read every token of the journal, each once."""
    told, telling = await begin(client)
    await kill(up, "valkey")
    assert not told.finish_reasons, "it was killed too late"
    read_before = told.text
    await telling
    # How the story would have gone on without the kill is not known: where its agent's lease was over, a part of it is
    # computed again, and llama.cpp adds up several tokens at once in another order than one by one.
    assert told.text.startswith(read_before)
    assert told.text == "".join(
        frame.text for frame in await queue.frames(told.request_id) if isinstance(frame, Tokens)
    )
    assert len(await queue.token_ids(told.request_id)) == told.completion_tokens == NUM_TOKENS
    assert told.finish_reasons == ["length"]


async def test_the_only_agent(up: Up, client: AsyncOpenAI) -> None:
    """Nobody else can take over, so the request waits until its lease is over and the new process has the model."""
    told, telling = await begin(client)
    await kill(up, "agent-1")
    assert not told.finish_reasons, "it was killed too late"
    read_before = told.text
    await telling
    assert told.text.startswith(read_before)
    assert told.finish_reasons == ["length"]
    assert told.completion_tokens == NUM_TOKENS


async def test_the_worker(up: Up, client: AsyncOpenAI) -> None:
    """No request passes through it, so none is touched."""
    told, telling = await begin(client)
    await kill(up, "worker")
    assert (await telling).completion_tokens == NUM_TOKENS
    assert told.finish_reasons == ["length"]


async def test_the_balancer(up: Up, client: AsyncOpenAI, queue: Queue) -> None:
    """The connections break. A client that tries again, as the official one does by itself, finds the next process on
    the same address; what it had asked before does not stay in the queue for ever."""
    told = Told()
    telling = asyncio.create_task(told.ask(client, STORY, max_tokens=10 * NUM_TOKENS))
    await wait_until(lambda: len(told.text) > 20, timeout_s=30, what="the story has begun")
    os.kill(up.pids()["balancer"], signal.SIGKILL)
    with pytest.raises(APIError) as broken:
        await telling
    assert isinstance(broken.value, APIConnectionError) or "closed" in str(broken.value)
    async with openai_client(up.openai_url, max_retries=6) as stubborn:
        answer = await stubborn.chat.completions.create(model="default", messages=asking("hi"), max_tokens=2)
    assert answer.choices[0].message.content
    await wait_until(queue.is_empty, timeout_s=30, what="nothing is left of the broken stream")
