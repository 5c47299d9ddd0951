"""`POST /v1/completions` with the official client: on a scripted engine, and on the starter model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fleet_harness import Fleet
from http_harness import HandAgent, HttpBalancer
from openai import APIError, AsyncOpenAI, BadRequestError
from starter_engine import starter_engine

from paddler.store.client import Store
from paddler.testing.script import NUM_WORDS
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

SAY = "snow ☃, a pair 😀 and a stop"
PROMPT = f"[[say={SAY}]]"
GREEDY: dict[str, Any] = {"temperature": 0, "presence_penalty": 0, "extra_body": {"repeat_penalty": 1}}


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def client(balancer: HttpBalancer, fleet: Fleet) -> AsyncIterator[AsyncOpenAI]:
    await fleet.agent(slots=4, step_s=0.002)
    async with balancer.openai() as client:
        yield client


async def test_whole(client: AsyncOpenAI) -> None:
    completion = await client.completions.create(model="default", prompt=PROMPT, max_tokens=100)
    (choice,) = completion.choices
    assert (choice.text, choice.finish_reason, choice.index, choice.logprobs) == (SAY, "stop", 0, None)
    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-default.")
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(SAY.encode())
    short = await client.completions.create(model="default", prompt=PROMPT)
    assert (short.choices[0].finish_reason, short.choices[0].text) == ("length", SAY.encode()[:16].decode())


async def test_streamed(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="default", prompt=PROMPT, max_tokens=100, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == SAY
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(SAY.encode())


async def test_echo_of_texts_and_of_tokens(client: AsyncOpenAI) -> None:
    ids = [NUM_WORDS + byte for byte in PROMPT.encode()]
    for prompt in (PROMPT, ids):
        whole = await client.completions.create(model="default", prompt=prompt, max_tokens=100, echo=True)
        assert whole.choices[0].text == PROMPT + SAY
        stream = await client.completions.create(model="default", prompt=prompt, max_tokens=100, echo=True, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == PROMPT + SAY
        alone = await client.completions.create(model="default", prompt=prompt, max_tokens=0, echo=True)
        assert (alone.choices[0].text, alone.choices[0].finish_reason) == (PROMPT, "length")


async def test_prompts_and_choices_in_order(client: AsyncOpenAI) -> None:
    prompts = ["[[say=one]]", "[[say=two]] and more", "[[say=three]]"]
    said = ["one", "one", "two", "two", "three", "three"]
    whole = await client.completions.create(model="default", prompt=prompts, n=2)
    assert [choice.text for choice in whole.choices] == said
    assert [choice.index for choice in whole.choices] == list(range(6))
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, sum(map(len, said)))

    texts = [""] * 6
    stream = await client.completions.create(
        model="default", prompt=prompts, n=2, stream=True, echo=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        if chunk.usage is not None:
            assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (5, sum(map(len, said)))
    assert texts == [prompts[index // 2] + text for index, text in enumerate(said)]


async def test_choices_differ_and_a_seed_brings_them_back(client: AsyncOpenAI) -> None:
    first, again = [
        await client.completions.create(model="default", prompt="tell", n=3, seed=5, temperature=1) for _ in range(2)
    ]
    texts = [choice.text for choice in first.choices]
    assert len(set(texts)) == 3
    assert [choice.text for choice in again.choices] == texts


async def test_the_best_of_several_are_the_likeliest(client: AsyncOpenAI) -> None:
    best = await client.completions.create(model="default", prompt="tell", n=2, best_of=5, seed=5, logprobs=0)
    every = await client.completions.create(model="default", prompt="tell", n=5, seed=5, logprobs=0)

    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    likeliest = sorted(every.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in likeliest[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage == every.usage, "all are paid for"


async def test_log_probabilities(client: AsyncOpenAI) -> None:
    completion = await client.completions.create(model="default", prompt="[[say=a☃b]]", logprobs=2)
    told = completion.choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.text_offset) == (["a", "bytes:\\xe2", "bytes:\\x98", "bytes:\\x83", "b"], [0, 1, 1, 1, 2])
    assert told.top_logprobs is not None
    assert [len(one) for one in told.top_logprobs] == [2] * 5


async def test_errors_have_their_status_or_end_the_stream(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        await client.completions.create(model="default", prompt=[10**8])
    assert (refused.value.param, refused.value.code) == ("prompt", "invalid_field")
    with pytest.raises(BadRequestError):
        await client.completions.create(model="default", prompt=[10**8], stream=True)
    with pytest.raises(APIError):
        await client.completions.create(model="default", prompt="[[fail]]")


async def test_a_stream_goes_on_from_any_of_its_events(balancer: HttpBalancer, agent: HandAgent) -> None:
    body = {"model": "default", "prompt": "Once", "echo": True, "stream": True}
    async with balancer.http() as http:
        async with http.stream("POST", "/v1/completions", json=body) as response:
            request = await agent.take()
            assert request.asked.prompt == "Once"
            await request.say(" upon")
            await request.say(" a time")
            await request.finish()
            lines = (await response.aread()).decode().splitlines()
        ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
        assert len(ids) == 2
        url = f"/v1/requests/{request.request_id}"
        again = (await http.get(f"{url}/stream")).text
        assert [line for line in again.splitlines() if line.startswith("data: ")] == [
            line for line in lines if line.startswith("data: ")
        ]
        rest = (await http.get(f"{url}/stream", headers={"Last-Event-ID": ids[0]})).text
        assert '"text":" a time"' in rest
        assert "Once" not in rest
        shown = (await http.get(url)).json()
        assert shown["response"]["object"] == "text_completion"
        assert shown["response"]["choices"][0]["text"] == "Once upon a time"


async def test_in_the_background(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        told = await http.post("/v1/completions", json={"model": "default", "prompt": "x", "background": True})
        assert told.status_code == 202
        request = await agent.take()
        await request.say("done")
        await request.finish()
        shown = (await http.get(told.headers["location"])).json()
    assert (shown["state"], shown["response"]["choices"][0]["text"]) == ("done", "done")


async def test_who_leaves_cancels_all(balancer: HttpBalancer, fleet: Fleet) -> None:
    await fleet.agent(slots=4, step_s=0.05)
    async with balancer.http() as http:
        body = {"model": "default", "prompt": ["a [[tokens=9999]]", "b [[tokens=9999]]"], "n_predict": -1, "n": 2}
        asking = asyncio.create_task(http.post("/v1/completions", json=body))

        async def all_run() -> bool:
            return await balancer.demand() == 4

        await wait_until(all_run)
        asking.cancel()
        await wait_until(balancer.is_idle)


async def test_the_openai_service_has_it_too_and_keys_bring_a_request_back(
    balancer: HttpBalancer, fleet: Fleet
) -> None:
    await fleet.agent()
    async with balancer.http("openai") as http:
        body: dict[str, Any] = {"model": "default", "prompt": "x", "max_tokens": 4}
        first, again = [
            await http.post("/v1/completions", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
        ]
        assert first.json() == again.json()
        several = await http.post("/v1/completions", json=body | {"n": 2}, headers={"Idempotency-Key": "l"})
        assert (several.status_code, several.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_with_a_model(balancer: HttpBalancer, fleet: Fleet) -> None:
    """The same prompt as text and as tokens, echoed, held to a schema, and what the vocabulary cannot do."""
    await fleet.agent(engine=starter_engine())
    async with balancer.openai() as client, balancer.http() as http:
        prompt = "Once upon a time, there was a"
        by_text = await client.completions.create(model="default", prompt=prompt, max_tokens=8, logprobs=3, **GREEDY)
        ids = await tokens_of(http, prompt)
        by_ids = await client.completions.create(model="default", prompt=ids, max_tokens=8, **GREEDY)
        assert by_ids.choices[0].text == by_text.choices[0].text != ""
        told = by_text.choices[0].logprobs
        assert told is not None
        assert told.tokens is not None
        assert told.text_offset is not None
        assert "".join(told.tokens) == by_text.choices[0].text
        places = zip(told.text_offset, told.tokens, strict=True)
        assert all(by_text.choices[0].text[at:].startswith(one) for at, one in places)
        echoed = await client.completions.create(model="default", prompt=ids, max_tokens=8, echo=True, **GREEDY)
        assert echoed.choices[0].text == prompt + by_text.choices[0].text
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        formed = await client.completions.create(
            model="default", prompt="As JSON:", max_tokens=40, extra_body={"json_schema": schema, "temperature": 0.2}
        )
        assert formed.choices[0].text.lstrip().startswith("{")
        with pytest.raises(BadRequestError) as refused:
            await client.completions.create(model="default", prompt="def f():", suffix="return x")
        assert refused.value.param == "suffix"


async def tokens_of(http: httpx.AsyncClient, text: str) -> list[int]:
    return (await http.post("/tokenize", json={"content": text})).json()["tokens"]
