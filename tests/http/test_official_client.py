"""The official `openai` client, sync and async, streaming and not, on a fleet whose agent runs a scripted engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer, NewBalancer
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
)
from openai.types.chat import ChatCompletionMessageParam

from paddler.store.client import Store
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

SAY = "snow ☃, a pair 😀 and a stop"


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def asking(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


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


async def test_async_whole(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="default", messages=asking(f"[[say={SAY}]]"))
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == SAY
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "default"
    assert completion.usage is not None
    assert completion.usage.completion_tokens > len(SAY)
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.prompt_tokens_details is not None
    assert completion.id == f"chatcmpl-{completion._request_id}"


async def test_async_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="scripted", messages=asking(f"[[say={SAY}]]"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *spoken, usage = chunks
    assert {chunk.model for chunk in chunks} == {"scripted"}
    assert spoken[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in spoken[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == SAY
    assert [chunk.choices[0].finish_reason for chunk in spoken if chunk.choices[0].finish_reason] == ["stop"]
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens > len(SAY)


async def test_sync(client: AsyncOpenAI, balancer: HttpBalancer) -> None:
    def whole_and_stream(client: OpenAI) -> tuple[str | None, str]:
        whole = client.chat.completions.create(model="default", messages=asking("hi"), temperature=0, max_tokens=5)
        stream = client.chat.completions.create(
            model="default", messages=asking("hi"), temperature=0, max_tokens=5, stream=True
        )
        assert whole.choices[0].finish_reason == "length"
        return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with balancer.openai_sync("openai") as sync:
        whole, streamed = await asyncio.to_thread(whole_and_stream, sync)
    assert whole == streamed
    assert whole


async def test_the_stream_helper(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="default", messages=asking(f"[[say={SAY}]]"), stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type async for event in stream]
        completion = await stream.get_final_completion()
    assert "content.delta" in kinds
    assert "content.done" in kinds
    assert completion.choices[0].message.content == SAY
    assert completion.usage is not None


async def test_seed_and_stop(client: AsyncOpenAI) -> None:
    async def ask(seed: int, stop: list[str] | None = None) -> str | None:
        completion = await client.chat.completions.create(
            model="default", messages=asking("hi"), seed=seed, stop=stop, max_completion_tokens=6
        )
        return completion.choices[0].message.content

    first = await ask(1)
    assert first
    assert await ask(1) == first
    assert await ask(2) != first
    third_word = first.split()[2]
    assert await ask(1, [third_word]) == first.partition(third_word)[0]


async def test_a_conversation_goes_back_as_it_came(client: AsyncOpenAI) -> None:
    turns: list[Any] = [*asking("[[say=one]]")]
    answer = (await client.chat.completions.create(model="default", messages=turns)).choices[0].message
    turns += [answer.to_dict(), *asking("[[say=two]]")]
    again = await client.chat.completions.create(model="default", messages=turns)
    assert again.choices[0].message.content


async def test_models(client: AsyncOpenAI) -> None:
    async def is_known() -> bool:
        return {"default", "scripted"} == {model.id async for model in client.models.list()}

    await wait_until(is_known)
    model = await client.models.retrieve("scripted")
    assert (model.id, model.object, model.owned_by) == ("scripted", "model", "paddler")
    assert model.created > 1_600_000_000
    with pytest.raises(NotFoundError):
        await client.models.retrieve("org/other")


async def test_errors_are_the_clients_own(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as bad:
        await client.chat.completions.create(model="default", messages=asking("hi"), temperature=5)
    assert (bad.value.param, bad.value.code) == ("temperature", "invalid_field")
    with pytest.raises(NotFoundError) as unknown:
        await client.chat.completions.create(model="gpt-9", messages=asking("hi"))
    assert unknown.value.code == "model_not_found"
    for stream in (False, True):
        with pytest.raises(InternalServerError) as failed:
            await client.chat.completions.create(model="default", messages=asking("[[fail]]"), stream=stream)
        assert failed.value.code == "engine_failed"


async def test_an_error_within_a_stream_is_raised(
    new_balancer: NewBalancer, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    balancer = await new_balancer()
    await fleet.agent(slots=1, step_s=0.01)
    async with balancer.openai() as client:
        stream = await client.chat.completions.create(model="default", messages=asking("[[tokens=5000]]"), stream=True)
        await anext(stream)
        balancer.gateway.stop_accepting()
        with pytest.raises(APIError, match="stopping") as failed:
            async for _ in stream:
                pass
        assert failed.value.code == "shutting_down"
        with pytest.raises(APIStatusError) as refused:
            await client.chat.completions.create(model="default", messages=asking("hi"))
        assert refused.value.status_code == 503


async def test_eight_streams_on_four_slots(client: AsyncOpenAI, fleet: Fleet) -> None:
    async def ask(number: int) -> str:
        stream = await client.chat.completions.create(
            model="default", messages=asking(f"[[say=answer {number} {'.' * 100}]]"), stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number)) for number in range(8)]

        async def four_wait() -> bool:
            return await fleet.num_waiting() == 4

        await wait_until(four_wait, poll_s=0.001)
    assert [task.result() for task in tasks] == [f"answer {number} {'.' * 100}" for number in range(8)]
    assert await fleet.num_waiting() == 0


async def test_closing_a_stream_frees_its_slot(balancer: HttpBalancer, fleet: Fleet) -> None:
    engine = ScriptedEngine(slots=1, step_s=0.01)
    await fleet.agent(engine=engine)
    async with balancer.openai() as client:
        stream = await client.chat.completions.create(model="default", messages=asking("[[tokens=5000]]"), stream=True)
        await anext(stream)
        await stream.close()
        await wait_until(fleet.is_idle)
        after = await client.chat.completions.create(model="default", messages=asking("[[tokens=3]]"))
        assert after.choices[0].message.content


async def test_embeddings_in_both_forms(client: AsyncOpenAI, balancer: HttpBalancer) -> None:
    """The client asks for base64 unless it is told otherwise, and unpacks it."""
    texts = ["a red fox", "a red cat", "the market fell", "a red fox"]
    answer = await client.embeddings.create(model="default", input=texts)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("default", 12, 12)
    fox, cat, market, again = (one.embedding for one in answer.data)
    assert fox == again
    assert dot(fox, cat) > dot(fox, market) + 0.2
    assert math.isclose(dot(fox, fox), 1, rel_tol=1e-5)
    plain = await client.embeddings.create(model="scripted", input=texts, encoding_format="float")
    assert [one.embedding for one in plain.data] == [one.embedding for one in answer.data]
    one = await client.embeddings.create(model="default", input="a red fox", user="me")
    assert one.data[0].embedding == fox
    short = await client.embeddings.create(model="default", input="a red fox", dimensions=3)
    length = sum(number**2 for number in fox[:3]) ** 0.5
    assert short.data[0].embedding == pytest.approx([number / length for number in fox[:3]])
    with balancer.openai_sync("openai") as sync:
        told = await asyncio.to_thread(lambda: sync.embeddings.create(model="default", input="a red fox"))
    assert told.data[0].embedding == fox


async def test_a_large_batch_of_embeddings(client: AsyncOpenAI, fleet: Fleet) -> None:
    answer = await client.embeddings.create(model="default", input=[f"text number {number}" for number in range(500)])
    assert [one.index for one in answer.data] == list(range(500))
    assert answer.usage.total_tokens == 1500
    assert await fleet.is_idle()


async def test_errors_of_embeddings_are_the_clients_own(client: AsyncOpenAI) -> None:
    wrong: dict[str, Any] = {
        "input[1]": {"input": ["a", [1, 2]]},
        "input[20]": {"input": ["a"] * 20 + ["word " * 9000]},
        "dimensions": {"input": "a", "dimensions": 33},
    }
    for param, fields in wrong.items():
        with pytest.raises(BadRequestError) as bad:
            await client.embeddings.create(model="default", **fields)
        assert bad.value.param == param
    with pytest.raises(InternalServerError) as failed:
        await client.embeddings.create(model="default", input=["a", "[[fail]]"])
    assert failed.value.code == "engine_failed"
