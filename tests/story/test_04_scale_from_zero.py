"""A fleet without a single agent is a working fleet: requests wait for the first one, within limits.

Here the commands are started one by one, as on many machines: two balancers with different patience and a worker, on
one Redis. A balancer holds nothing that another does not see, so their number does not matter.
"""

from __future__ import annotations

import asyncio

import pytest
from openai import APIStatusError, AsyncOpenAI
from story_harness import SCRIPTED, CommandFleet, Queue, asking

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def ask(
    client: AsyncOpenAI, text: str = "What is the capital of France?", *, stream: bool = False
) -> asyncio.Task[str]:
    async def answer() -> str:
        if stream:
            chunks = await client.chat.completions.create(
                model="default", messages=asking(text), stream=True, temperature=0
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        completion = await client.chat.completions.create(model="default", messages=asking(text), temperature=0)
        return completion.choices[0].message.content or ""

    return asyncio.create_task(answer())


async def waiting(queue: Queue, number: int) -> None:
    async def do_wait() -> bool:
        return await queue.num_waiting() == number

    await wait_until(do_wait, what=f"{number} requests wait")


async def test_a_request_waits_for_the_first_agent(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """It is in the buffer, and in the ledger `demand`, whose length an autoscaler reads to start the first agent.
    The agent has loaded its model for seconds when the answer comes; the client has only waited."""
    assert await fleet_queue.agents() == []
    answer = ask(patient)
    await waiting(fleet_queue, 1)
    assert await fleet_queue.demand() == 1
    await fleet.agent("first", "--slots", "2")
    assert "Paris" in await answer
    assert await fleet_queue.demand() == 0


async def test_they_are_served_in_the_order_they_came(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """The scripted engine stands in for a model where a test is about the fleet and not about the text."""
    answered: list[int] = []
    answers: list[asyncio.Task[str]] = []
    for number in range(4):
        answers.append(ask(patient, f"[[say=answer {number}]]"))
        answers[-1].add_done_callback(lambda _, number=number: answered.append(number))
        await waiting(fleet_queue, number + 1)
    await fleet.agent("only", *SCRIPTED, "--slots", "1", "--scripted-step", "2")
    assert await asyncio.gather(*answers) == [f"answer {number}" for number in range(4)]
    assert answered == [0, 1, 2, 3]


async def test_a_full_buffer_says_when_to_come_back(
    fleet: CommandFleet, patient: AsyncOpenAI, impatient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """`--max-buffered-requests 2`: the third is refused at once, with 503 and a Retry-After that clients obey. The
    official client would try again by itself; here it has been told not to."""
    answers = [ask(patient, "[[say=kept]]"), ask(patient, "[[say=kept]]")]
    await waiting(fleet_queue, 2)
    for stream in (False, True):
        with pytest.raises(APIStatusError) as refused:
            await ask(impatient, stream=stream)
        assert (refused.value.status_code, refused.value.code) == (503, "buffer_full")
        assert int(refused.value.response.headers["retry-after"]) >= 1
    assert await fleet_queue.num_waiting() == 2
    await fleet.agent("late", *SCRIPTED, "--slots", "1")
    assert await asyncio.gather(*answers) == ["kept", "kept"]


async def test_who_waited_too_long_is_told(impatient: AsyncOpenAI, fleet_queue: Queue) -> None:
    """`--buffered-request-timeout 1000`: after a second without a free slot the answer is 504, and the request is out
    of the queue, so that no agent works for somebody who has given up."""
    late = ask(impatient)
    await waiting(fleet_queue, 1)
    with pytest.raises(APIStatusError) as told:
        await late
    assert (told.value.status_code, told.value.code) == (504, "start_timeout")
    assert (await fleet_queue.num_waiting(), await fleet_queue.demand()) == (0, 0)


async def test_what_has_ended_leaves_redis_by_itself(
    fleet: CommandFleet, patient: AsyncOpenAI, impatient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """While a request is open its keys stay, whatever happens; from its end on each has a TTL: ten minutes in which a
    repeat or a resume finds it. (After every test with this fleet all other keys are looked at, too.)"""
    before = await fleet_queue.requests()
    with pytest.raises(APIStatusError):
        await ask(impatient)
    gone = ask(patient)
    await waiting(fleet_queue, 1)
    (open_one,) = await fleet_queue.requests("waiting")
    assert set(await fleet_queue.ttls(open_one)) == {-1}
    gone.cancel()
    await waiting(fleet_queue, 0)
    await fleet.agent("last", *SCRIPTED, "--slots", "1")
    await ask(patient)

    ended = await fleet_queue.requests() - before
    assert len(ended) == 3
    for request_id in ended:
        ttls = await fleet_queue.ttls(request_id)
        assert len(ttls) >= 3
        assert all(500 < ttl <= 600 for ttl in ttls)
