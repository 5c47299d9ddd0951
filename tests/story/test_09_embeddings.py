"""Embeddings are requests like any other: they wait in the same buffer, run in the same slots, and outlive an agent."""

from __future__ import annotations

import asyncio
import math
import signal

import httpx
import pytest
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse
from story_harness import SCRIPTED, CommandFleet, Queue, asking

from paddler.testing.embed_script import vector_of
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import Vectors

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TEXTS = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "The stock market fell sharply on Tuesday."]


def embed(client: AsyncOpenAI, texts: list[str]) -> asyncio.Task[CreateEmbeddingResponse]:
    return asyncio.create_task(client.embeddings.create(model="default", input=texts))


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def assert_scripted(answer: CreateEmbeddingResponse, texts: list[str]) -> None:
    for one, text in zip(answer.data, texts, strict=True):
        assert math.isclose(dot(one.embedding, vector_of(text).tolist()), 1, rel_tol=1e-4)


async def test_they_wait_for_the_first_agent_and_a_model_knows_what_is_alike(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """With no agent at all it waits behind what came before, where everybody can see its position. Then an agent comes
    with a chat model, and answers both: any of them embeds. Sentences that mean the same are closer to each other."""
    chat = asyncio.create_task(patient.chat.completions.create(model="default", messages=asking("Hi"), max_tokens=8))
    await wait_until(fleet_queue.num_waiting)
    (first,) = await fleet_queue.requests("waiting")
    answer = embed(patient, TEXTS)

    async def both_wait() -> bool:
        return await fleet_queue.num_waiting() == 2

    await wait_until(both_wait)
    (request_id,) = await fleet_queue.requests("waiting") - {first}
    async with httpx.AsyncClient(base_url=fleet.balancer_url, trust_env=False) as http:
        shown = (await http.get(f"/v1/requests/{request_id}")).json()
    assert (shown["state"], shown["position"]) == ("waiting", 1)

    await fleet.agent("first", "--slots", "2")
    cat, kitten, market = ((one.embedding) for one in (await answer).data)
    assert (await chat).choices[0].message.content
    assert math.isclose(dot(cat, cat), 1, rel_tol=1e-4)
    assert dot(cat, kitten) > max(dot(cat, market), dot(kitten, market)) + 0.05
    assert (await answer).usage.total_tokens > 20
    assert await fleet_queue.demand() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_another_agent_goes_on_with_the_next_text(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue, how: signal.Signals
) -> None:
    """The agent is killed, or sent home, when it has some of the vectors. Those are in the journal: the next agent does
    the others, and nothing is computed twice."""
    texts = [f"a text about the number {number}" for number in range(15)]
    slow = (*SCRIPTED, "--slots", "1", "--scripted-step", "100")
    agents = {"one": await fleet.agent("one", *slow)}
    before = await fleet_queue.requests()
    answer = embed(patient, texts)

    async def num_vectors() -> int:
        frames = [frame for one in await fleet_queue.requests() - before for frame in await fleet_queue.frames(one)]
        return sum(len(frame.vectors) for frame in frames if isinstance(frame, Vectors))

    async def some_are_there() -> bool:
        return await num_vectors() >= 3

    await wait_until(some_are_there)
    agents["one"].process.send_signal(how)
    assert await num_vectors() < 15, "it was killed too late"
    await fleet.agent("two", *slow)

    assert_scripted(await answer, texts)
    (request_id,) = await fleet_queue.requests() - before
    assert await fleet_queue.agent_names(request_id) == ["one", "two"]
    assert await num_vectors() == 15
    assert (await answer).usage.prompt_tokens == 15 * 6


async def test_a_batch_is_spread_over_the_fleet_and_survives_an_agent_too(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Sixty-four texts and four slots on two agents: four requests of sixteen. In one of them is a text that kills its
    agent, once: `[[die=4]]` does that to the scripted engine when four vectors are out."""
    await fleet.agent("one", *SCRIPTED, "--slots", "2", "--scripted-step", "20")
    await fleet.agent("two", *SCRIPTED, "--slots", "2", "--scripted-step", "20")
    texts = [f"text {number}" for number in range(64)]
    texts[20] = "[[die=4]]"

    async def knows_all_slots() -> bool:
        made = await fleet_queue.requests()
        await embed(patient, texts[:16] * 4)
        return len(await fleet_queue.requests() - made) == 4

    await wait_until(knows_all_slots, timeout_s=20, poll_s=0.5)
    before = await fleet_queue.requests()
    assert_scripted(await embed(patient, texts), texts)
    requests = await fleet_queue.requests() - before
    assert len(requests) == 4
    attempts = [len(await fleet_queue.agent_names(request_id)) for request_id in requests]
    assert max(attempts) >= 2, "nobody was killed"
