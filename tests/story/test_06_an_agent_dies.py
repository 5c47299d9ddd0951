"""Kill an agent in the middle of a sentence: another goes on from the tokens already sent, and the client sees one
unbroken stream.

What a request has said stands in its journal in Redis, token by token. Whoever takes it over reads the journal, puts
the tokens behind the prompt and continues. That an agent is lost is noticed by its lease, which only its own progress
renews: five seconds by default, one second here.
"""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI
from story_harness import SCRIPTED, CommandFleet, Queue, Told

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120), pytest.mark.xdist_group("story")]

TELLER = (*SCRIPTED, "--slots", "4", "--scripted-step", "25")
NUM_TOKENS = 40


def tell(client: AsyncOpenAI, told: list[Told]) -> list[asyncio.Task[Told]]:
    """The scripted engine says the same words to the same prompt, so that a missing or repeated one is seen."""
    return [
        asyncio.create_task(one.ask(client, f"story {number} [[tokens={NUM_TOKENS}]]", temperature=0))
        for number, one in enumerate(told)
    ]


async def test_its_streams_go_on_elsewhere_word_for_word(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Six streams on two agents, and one of the two is killed. Each stream is told as if nothing had happened: the
    text, the number of tokens, the end. No token twice and none missing."""
    agents = {name: await fleet.agent(name, *TELLER) for name in ("one", "two")}
    uninterrupted = await asyncio.gather(*tell(patient, [Told() for _ in range(6)]))
    assert len({one.text for one in uninterrupted}) == 6
    before = await fleet_queue.requests()

    told = [Told() for _ in range(6)]
    telling = tell(patient, told)
    await wait_until(lambda: all(len(one.text) > 20 for one in told), timeout_s=30, what="all are in mid-sentence")
    agents["one"].kill()
    await asyncio.gather(*telling)

    assert [one.text for one in told] == [one.text for one in uninterrupted]
    assert [one.finish_reasons for one in told] == [["stop"]] * 6
    assert [one.completion_tokens for one in told] == [NUM_TOKENS] * 6
    names = [await fleet_queue.agent_names(request_id) for request_id in await fleet_queue.requests() - before]
    assert ["one", "two"] in names, "nothing ran on the agent that was killed"
    assert [name for name in names if name not in (["two"], ["one", "two"])] == []


async def test_with_a_model_the_client_sees_one_stream(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """The same with SmolLM2. Its words are not compared: the prompt is computed in other portions the second time,
    and rounding may tip a choice. But there is one beginning, one end and not a token too many."""
    agents = {name: await fleet.agent(name, "--slots", "1", "--threads", "1") for name in ("one", "two")}
    before = await fleet_queue.requests()
    told = Told()
    telling = asyncio.create_task(told.ask(patient, "Tell me a long story about a river.", max_tokens=60, seed=1))
    await wait_until(lambda: len(told.text) > 40, timeout_s=30, what="it is in mid-sentence")
    (request_id,) = await fleet_queue.requests() - before
    (first,) = await fleet_queue.agent_names(request_id)
    agents.pop(first).kill()
    read_before = told.text

    await telling
    assert told.text.startswith(read_before)
    assert told.finish_reasons == ["length"]
    assert told.completion_tokens == await fleet_queue.num_tokens(request_id) == 60
    assert await fleet_queue.agent_names(request_id) == [first, *agents]


async def test_when_it_was_the_last_one_the_worker_takes_its_requests_back(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Agents look after each other; with none left the worker does. The request waits in the buffer, at its old place
    and without a deadline, for whoever comes next."""
    (uninterrupted,) = await asyncio.gather(*await _alone(fleet, patient))
    last = await fleet.agent("last", *TELLER)
    told = [Told()]
    (telling,) = tell(patient, told)
    await wait_until(lambda: len(told[0].text) > 20)
    last.kill()
    await wait_until(fleet_queue.num_waiting, what="the worker has put it back")
    assert await fleet_queue.agents() == []
    await fleet.agent("next", *TELLER)
    assert (await telling).text == uninterrupted.text


async def _alone(fleet: CommandFleet, client: AsyncOpenAI) -> list[asyncio.Task[Told]]:
    await fleet.agent("calm", *SCRIPTED, "--slots", "4")
    tasks = tell(client, [Told()])
    await asyncio.wait(tasks)
    fleet.stop_agents()
    return tasks
