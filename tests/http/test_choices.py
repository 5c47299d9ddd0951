"""Several choices of one chat completion, with the official client on a fleet of scripted engines, and on a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import httpx
import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer, NewAgent, chat, read_events
from openai import AsyncOpenAI, BadRequestError
from openai.types import CompletionUsage
from starter_engine import starter_engine

from api.openai.choices import choice_payloads
from paddler.errors import EngineFailed
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Sampling
from workers.agent.context import Decoded
from workers.agent.llama_engine import LlamaEngine

pytestmark = pytest.mark.anyio

ASKED: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "a b [[tokens=6]]"}], "seed": 5}


@pytest.fixture
async def client(balancer: HttpBalancer, store: Store) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        await fleet.agent(slots=2, step_s=0.002)
        yield await stack.enter_async_context(balancer.openai())
        await fleet.close()


async def test_choices_differ_and_the_prompt_counts_once(client: AsyncOpenAI) -> None:
    """Also with more of them than there are slots."""
    one = await client.chat.completions.create(**ASKED)
    many = await client.chat.completions.create(**ASKED, n=5, logprobs=True)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3, 4]
    texts = [choice.message.content for choice in many.choices]
    assert texts[0] == one.choices[0].message.content
    assert len(set(texts)) == 5
    assert all(choice.logprobs and len(choice.logprobs.content or []) == 6 for choice in many.choices)
    assert one.usage is not None
    assert many.usage is not None
    assert (many.usage.prompt_tokens, many.usage.completion_tokens) == (one.usage.prompt_tokens, 30)
    assert many.id == f"chatcmpl-{many._request_id}"
    assert [choice.message.content for choice in (await client.chat.completions.create(**ASKED, n=5)).choices] == texts


async def test_a_model_computes_the_prompt_of_all_choices_once(balancer: HttpBalancer, store: Store) -> None:
    engine = await asyncio.to_thread(starter_engine)
    assert isinstance(engine, LlamaEngine)
    context, sizes = engine._context, list[int]()
    decode = context.decode

    def counted() -> Decoded:
        sizes.append(context.batch.size)
        return decode()

    context.decode = counted
    asked: dict[str, Any] = {"model": "default", "seed": 5, "temperature": 1.5, "max_tokens": 5}
    messages: Any = [{"role": "user", "content": "one two three four five six seven eight nine ten " * 15}]
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        await fleet.agent(engine=engine, lease_ms=5000)
        client = await stack.enter_async_context(balancer.openai())
        made = await client.chat.completions.create(**asked, messages=messages, n=4)
        await fleet.close()
    assert made.usage is not None
    num_prompt = made.usage.prompt_tokens
    assert num_prompt > 150
    # The first has all of it, the others their ends; who comes between two of its chunks may compute one of them anew.
    assert sum(sizes) < 2 * num_prompt + 100, "not four times"
    assert 4 <= made.usage.completion_tokens <= 20
    assert len({choice.message.content for choice in made.choices}) == 4


async def test_streamed_choices_are_those_of_the_plain_answer(client: AsyncOpenAI) -> None:
    """Also with more of them than there are slots; they come side by side, and the usage once, at the end."""
    plain = await client.chat.completions.create(**ASKED, n=5, logprobs=True)
    texts, reasons, order = [""] * 5, [""] * 5, list[int]()
    num_logprobs, usages, roles = [0] * 5, list[CompletionUsage](), list[int]()
    stream = await client.chat.completions.create(
        **ASKED, n=5, logprobs=True, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            roles += [choice.index] if choice.delta.role else []
            texts[choice.index] += choice.delta.content or ""
            num_logprobs[choice.index] += len(choice.logprobs.content or []) if choice.logprobs else 0
            reasons[choice.index] += choice.finish_reason or ""
            order.append(choice.index)
    assert texts == [choice.message.content for choice in plain.choices]
    assert reasons == ["length" if choice.finish_reason == "length" else "stop" for choice in plain.choices]
    assert sorted(roles) == [0, 1, 2, 3, 4]
    assert num_logprobs == [6] * 5
    assert len(usages) == 1
    assert plain.usage is not None
    assert (usages[0].prompt_tokens, usages[0].completion_tokens) == (plain.usage.prompt_tokens, 30)
    first_two = [index for index in order if index in (0, 1)]
    assert first_two != sorted(first_two), "two slots answer two choices side by side"


async def test_an_error_of_one_ends_the_stream_and_the_others(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2)
    async with balancer.http() as http:
        asked = http.stream("POST", "/v1/chat/completions", json=chat(n=2, stream=True))
        reading = asyncio.create_task(_read(asked))
        first, second = await agent.take(), await agent.take()
        await first.say("a")
        await second.say("b")
        await second.fail(EngineFailed("broken"))
        await first.cancelled()
        events = await reading
    assert [json.loads(event)["choices"][0]["index"] for event in events[:-2]].count(1) == 2
    assert json.loads(events[-2])["error"]["message"] == "broken"
    assert events[-1] == "[DONE]"
    await wait_until(balancer.is_idle)


async def test_leaving_a_stream_cancels_all_of_its_choices(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2)
    async with balancer.openai() as client:
        creating = asyncio.create_task(client.chat.completions.create(**ASKED, n=3, stream=True))
        first, second = await agent.take(), await agent.take()
        await second.say("b")
        await (await creating).close()
        await first.cancelled()
        await second.cancelled()
    await wait_until(balancer.is_idle)


async def _read(asked: AbstractAsyncContextManager[httpx.Response]) -> list[str]:
    async with asked as response:
        return [event.removeprefix("data: ") for event in await read_events(response) if event.startswith("data: ")]


async def test_an_error_of_one_is_the_answer(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(**ASKED, n=2, logit_bias={"99999": 1})
    assert caught.value.param == "logit_bias"


async def test_an_idempotency_key_needs_one_choice(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match="needs `n` to be 1") as caught:
        await client.chat.completions.create(**ASKED, n=2, extra_headers={"Idempotency-Key": "k"})
    assert caught.value.param == "Idempotency-Key"


def test_seeds_are_derived() -> None:
    payload = Generate(prompt="p", sampling=Sampling(seed=2**32 - 1, top_k=3))
    payloads = choice_payloads(payload, 8)
    assert payloads[0] == payload
    assert len({one.sampling.seed for one in payloads}) == 8
    assert all(one.sampling.top_k == 3 for one in payloads)
