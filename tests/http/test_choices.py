"""Several choices of one chat completion, with the official client on a fleet of scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer
from openai import AsyncOpenAI, BadRequestError

from api.openai.choices import choice_payloads
from paddler.store.client import Store
from paddler.wire.agent import Generate, Sampling

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
