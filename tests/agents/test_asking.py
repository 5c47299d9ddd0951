"""Questions about texts on their way through the queue."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from fleet_harness import Fleet

from api.asking import ask
from paddler.errors import EngineFailed, InvalidField
from paddler.jobs import fleet_view
from paddler.jobs.gateway import Gateway
from paddler.testing.waiting import wait_until
from paddler.wire.agent import CountTokens, Detokenize, Generate, Question, Tokenize
from paddler.wire.answers import Counted, Detokenized, Tokenized
from paddler.wire.balancer import Answered, Finished, Opened

pytestmark = pytest.mark.anyio

COUNT = CountTokens(request=Generate(prompt="three words here"))


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see a new agent at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


async def count(gateway: Gateway, question: Question = COUNT) -> Counted:
    return await ask(partial(gateway.submit, "default", question), Counted)


async def test_answers_come_as_what_was_asked_for(fleet: Fleet) -> None:
    await fleet.agent()
    gateway = await fleet.gateway()
    assert await count(gateway) == Counted(3)
    told = await ask(partial(gateway.submit, "default", Tokenize(text="hé")), Tokenized)
    assert len(told.tokens) == 3
    text = await ask(partial(gateway.submit, "default", Detokenize(tokens=told.tokens)), Detokenized)
    assert text == Detokenized("hé")
    with pytest.raises(EngineFailed, match="another question"):
        await ask(partial(gateway.submit, "default", COUNT), Tokenized)
    with pytest.raises(InvalidField) as refused:
        await ask(partial(gateway.submit, "default", Detokenize(tokens=(-1,))), Detokenized)
    assert refused.value.param == "tokens[0]"
    await wait_until(fleet.is_idle)


async def test_with_no_agent_a_question_waits_for_one(fleet: Fleet) -> None:
    gateway = await fleet.gateway()
    asking = asyncio.create_task(count(gateway))
    await wait_until(fleet.num_waiting)
    await fleet.agent()
    assert await asking == Counted(3)


async def test_a_free_slot_is_all_it_waits_for(fleet: Fleet) -> None:
    """A generation that takes minutes runs beside it."""
    await fleet.agent(slots=2, step_s=0.05)
    gateway = await fleet.gateway()
    async with await gateway.submit("default", Generate(prompt="go on [[tokens=100000]]", max_tokens=8000)) as running:
        await running.wait_opened(5)
        async with asyncio.timeout(2):
            assert [await count(gateway) for _ in range(5)] == [Counted(3)] * 5


async def test_one_held_by_an_agent_that_dies_is_answered_by_another(fleet: Fleet) -> None:
    """Its engine hangs, so that the answer is still to come when the process is killed."""
    agent = await fleet.agent(slots=2, lease_ms=500)
    gateway = await fleet.gateway()
    hanging = await gateway.submit("default", Generate(prompt="wait [[stall=2]]", max_tokens=3))
    await wait_until(lambda: agent.loop.engine.is_stepping and hanging.wait_opened(5), what="the engine hangs")
    async with await gateway.submit("default", COUNT) as reply:
        assert await reply.wait_opened(5)
        await agent.kill()
        await fleet.agent()
        frames = [frame async for frame in reply]
    assert [type(frame) for frame in frames] == [Opened, Opened, Answered, Finished]
    async with hanging:
        assert isinstance([frame async for frame in hanging][-1], Finished)


async def test_an_agent_that_may_be_older_is_not_asked(fleet: Fleet) -> None:
    await fleet.agent()
    gateway = await fleet.gateway()
    older = {"slots": 1, "state": "ready", "abilities": "generate embed"}
    await fleet.pool.register("agent.older", lease_ms=60_000, model="scripted", seen_s=1, snapshot=older)
    with pytest.raises(InvalidField, match="not all agents"):
        await count(gateway)
    assert await fleet.is_idle()
    await fleet.pool.reap("agent.older", max_deaths=3, dead_frame=b"", cancel_frame=b"", is_leaving=True)
    assert await count(gateway) == Counted(3)
