"""One command starts everything, and whatever speaks OpenAI's protocol is a client already.

`make run` ends in `paddler up`: a Valkey that holds the queue, a balancer that speaks HTTP, an agent with a model and
a worker for upkeep. Here it is the real thing, with SmolLM2, 135 million parameters: small, but it knows the capitals.
"""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI, OpenAI
from story_harness import Queue, asking
from up_harness import Up

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

QUESTION = asking("What is the capital of France? Answer in one sentence.")


async def test_up_is_four_processes(up: Up) -> None:
    """Each is started again when it dies, and each can also be started alone, on any machine that reaches the Redis."""
    assert up.pids().keys() == {"valkey", "balancer", "agent-1", "worker"}


async def test_ask_and_wait_for_the_whole_answer(up: Up) -> None:
    """A base URL is all there is to change. `model` is the name of a pool of agents, `default` unless one says else."""

    def ask() -> None:
        with OpenAI(base_url=f"{up.openai_url}/v1", api_key="none") as client:
            answer = client.chat.completions.create(model="default", messages=QUESTION, temperature=0)
        assert answer.choices[0].message.content
        assert "Paris" in answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage
        assert answer.usage.prompt_tokens > 10
        assert answer.usage.completion_tokens > 3

    await asyncio.to_thread(ask)


async def test_read_the_answer_while_it_is_made(up: Up) -> None:
    """With `stream` every token comes as soon as it exists."""

    def read() -> list[str]:
        with OpenAI(base_url=f"{up.openai_url}/v1", api_key="none") as client:
            stream = client.chat.completions.create(model="default", messages=QUESTION, temperature=0, stream=True)
            return [chunk.choices[0].delta.content or "" for chunk in stream]

    pieces = await asyncio.to_thread(read)
    assert "Paris" in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 3


async def test_everybody_gets_their_own_answer(client: AsyncOpenAI) -> None:
    """The async client, three questions at once: the agent computes them together, in one batch, on three slots."""

    async def ask(country: str) -> str | None:
        question = asking(f"What is the capital of {country}? Answer in one sentence.")
        answer = await client.chat.completions.create(model="default", messages=question, temperature=0)
        return answer.choices[0].message.content

    answers = await asyncio.gather(ask("France"), ask("Italy"), ask("Japan"))
    for answer, capital in zip(answers, ("Paris", "Rome", "Tokyo"), strict=True):
        assert answer
        assert capital in answer


async def test_the_first_token_comes_long_before_the_last(client: AsyncOpenAI, queue: Queue) -> None:
    """The async client, streaming. When the first words are there it still runs: the ledger says so."""
    stream = await client.chat.completions.create(
        model="default",
        messages=asking("Tell me a long story about a lighthouse."),
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    assert await queue.demand() == 1
    *_, last = [chunk async for chunk in stream]
    assert last.usage
    assert last.usage.completion_tokens == 40
    assert await queue.demand() == 0


async def test_a_model_is_a_pool_or_the_name_of_its_model(client: AsyncOpenAI) -> None:
    """The name comes from the GGUF file, without its quantisation; clients may use either."""
    assert [model.id async for model in client.models.list()] == ["default", "smollm2-135m-instruct"]
    answer = await client.chat.completions.create(model="smollm2-135m-instruct", messages=QUESTION, max_tokens=1)
    assert answer.model == "smollm2-135m-instruct"
