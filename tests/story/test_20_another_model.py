"""Agents without `--model` follow the desired state of their pool: an operator says what is to be served, and they
fetch it, take turns to change, and go on serving. Those who ask for answers meanwhile get them.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from following_harness import num_ready_slots
from openai import AsyncOpenAI
from story_harness import CommandFleet, Heard, Queue, asking

from paddler.desired.schema import BalancerDesiredState, GivenModel, InferenceParameters
from paddler.desired.store import DesiredStates
from paddler.jobs.overview import Lane, Overview
from paddler.store.client import connect
from paddler.store.desired_keys import DesiredKeys
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

FLAGS = ("--slots", "2", "--threads", "1")
SMALL = InferenceParameters(context_size=1024)


class Operator:
    """Sets the desired state and looks at the agents."""

    def __init__(self, url: str, prefix: str) -> None:
        self.store = connect(url, prefix)
        self._overview = Overview(self.store)

    async def put(self, path: Path, parameters: InferenceParameters = SMALL, **fields: Any) -> int:
        model = GivenModel(LocalToAgent=str(path))
        state = BalancerDesiredState(model=model, inference_parameters=parameters, **fields)
        return await DesiredStates(self.store).write("default", state, expected=None, author="story")

    async def lanes(self) -> list[Lane]:
        return (await self._overview.pool("default")).lanes

    async def told(self, field: str) -> list[str]:
        keys = self.store.pool("default").keys
        found = [await self.store.redis.hget(keys.agent(lane.agent), field) for lane in await self.lanes()]
        return [(value or b"").decode() for value in found]

    async def all_apply(self, version: int, number: int) -> None:
        async def do_they() -> bool:
            applied = [str(version)] * number
            return await self.told("applied_version") == applied and await self.told("state") == ["ready"] * number

        await wait_until(do_they, timeout_s=120, poll_s=0.1, what=f"{number} agents apply version {version}")

    async def status(self, wanted: str) -> None:
        async def is_told() -> bool:
            return await self.told("state_application_status") == [wanted]

        await wait_until(is_told, timeout_s=60, poll_s=0.05, what=f"the agent is {wanted}")

    async def close(self) -> None:
        """Nobody has ever set a state."""
        keys = DesiredKeys(self.store.pool("default").keys.base)
        await self.store.redis.delete(keys.desired(), keys.history())
        await self.store.close()


@pytest.fixture
async def operator(fleet: CommandFleet, valkey: RedisServer) -> AsyncIterator[Operator]:
    made = Operator(valkey.url, fleet.prefix)
    yield made
    await asyncio.to_thread(fleet.stop_agents)
    await made.close()


async def test_an_agent_waits_for_a_model_and_a_request_for_the_agent(
    fleet: CommandFleet, operator: Operator, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """It is in the pool at once, without slots and without a complaint."""
    agent = fleet.begin_agent("one", *FLAGS)
    await agent.logged("entered the pool, not ready yet")
    await operator.status("Fresh")
    assert await operator.told("state") == ["waiting"]
    question = patient.chat.completions.create(
        model="default", messages=asking("What is the capital of France?"), temperature=0, max_tokens=20
    )
    answer = asyncio.ensure_future(question)
    await wait_until(fleet_queue.num_waiting)
    version = await operator.put(find_starter())
    assert "Paris" in ((await answer).choices[0].message.content or "")
    await operator.all_apply(version, 1)


async def test_models_change_under_load_and_nobody_notices(
    fleet: CommandFleet, operator: Operator, patient: AsyncOpenAI, fleet_queue: Queue, tmp_path: Path
) -> None:
    """Two agents, four clients that never stop asking. The types of the KV cache change, then the file: each time one
    agent after the other lets go, loads and comes back. What it has not finished the other one goes on with: every
    answer has the tokens that were asked for, none is refused, none is lost."""
    copy = Path(shutil.copyfile(find_starter(), tmp_path / "copy.gguf"))
    version = await operator.put(find_starter())
    for name in ("one", "two"):
        fleet.begin_agent(name, *FLAGS)
    await operator.all_apply(version, 2)
    over, heard, fewest = asyncio.Event(), list[Heard](), [4]

    async def client(number: int) -> None:
        while not over.is_set():
            story = f"Tell me story {len(heard)} of river {number}, a long one."
            heard.append(await Heard().ask(patient, story, max_tokens=24, temperature=0.8))

    async def watch() -> None:
        while not over.is_set():
            fewest[0] = min(fewest[0], await num_ready_slots(operator.store.pool("default")))
            await asyncio.sleep(0.02)

    running = [asyncio.create_task(client(number)) for number in range(4)]
    watching = asyncio.create_task(watch())
    smaller = InferenceParameters(context_size=1024, k_cache_dtype="Q8_0")
    await operator.all_apply(await operator.put(find_starter(), smaller), 2)
    await operator.all_apply(await operator.put(copy, smaller), 2)
    over.set()
    await asyncio.gather(*running, watching)

    assert len(heard) >= 8
    for one in heard:
        assert len(one.finish_reasons) == 1
        assert one.finish_reasons[0] == "stop" or one.completion_tokens == 24
        assert len(await fleet_queue.token_ids(one.request_id)) == one.completion_tokens
    assert fewest[0] == 2, "one of the two is always there"
    assert set(await operator.told("model_path")) == {str(copy)}
    assert await fleet_queue.is_empty()
    moved = [one for one in heard if len(await fleet_queue.agent_names(one.request_id)) > 1]
    assert moved, "with a grace of 0 somebody was handed over"


async def test_a_state_that_cannot_be_applied_costs_nothing(
    fleet: CommandFleet, operator: Operator, patient: AsyncOpenAI, tmp_path: Path
) -> None:
    """The agent says what is wrong and serves what it had; it looks again when the file changes."""
    version = await operator.put(find_starter())
    agent = fleet.begin_agent("one", *FLAGS)
    await operator.all_apply(version, 1)
    page = tmp_path / "model.gguf"
    page.write_text("<html>404</html>")
    await operator.put(page)
    await agent.logged("the desired state cannot be applied", kind="ModelCannotBeLoaded")
    await operator.status("AttemptedAndNotAppliable")
    [lane] = await operator.lanes()
    assert lane.state == "ready"
    assert lane.issues[0].action.startswith("The agent goes on serving")
    answer = await patient.chat.completions.create(model="default", messages=asking("hello"), max_tokens=2)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert [one.agent for one in await operator.lanes()] == [lane.agent], "it has never left"
    shutil.copyfile(find_starter(), page)
    await operator.all_apply(version + 1, 1)
