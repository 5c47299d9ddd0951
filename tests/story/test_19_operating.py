"""An operator takes an agent out, puts it back and sends it home, while clients go on as if nothing were.

`POST /api/v1/agent/{id}/drain` and `undrain`, `DELETE /api/v1/agent/{id}`; `paddler agents` does the same over Redis.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest
from openai import AsyncOpenAI
from story_harness import SCRIPTED, CommandFleet, Queue, Told

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TELLER = (*SCRIPTED, "--slots", "2", "--scripted-step", "5")
NUM_TOKENS = 30


class Traffic:
    """Six clients that ask again as soon as they are answered."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.answers: list[Told] = []
        self._client = client
        self._is_over = False
        self._tasks = [asyncio.create_task(self._ask_for_ever()) for _ in range(6)]

    async def _ask_for_ever(self) -> None:
        while not self._is_over:
            told = Told()
            await told.ask(self._client, f"[[tokens={NUM_TOKENS}]]")
            self.answers.append(told)

    async def some_more(self, number: int = 12) -> None:
        """Wait for answers; raises what any client met."""
        wanted = len(self.answers) + number

        def are_there() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.answers) >= wanted

        await wait_until(are_there, timeout_s=60, what=f"{number} more answers")

    async def end(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)


async def test_drain_undrain_and_remove_under_load(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Two agents. The drained one has nothing to do any more and stays; undrained it works again; removed, its process
    ends with code 0. All answers are whole."""
    one = await fleet.agent("one", *TELLER)
    (one_id,) = await fleet_queue.agents()
    two = await fleet.agent("two", *TELLER)
    (two_id,) = set(await fleet_queue.agents()) - {one_id}
    traffic = Traffic(patient)
    async with httpx.AsyncClient(base_url=fleet.management_url, timeout=20, trust_env=False) as http:

        async def state(agent_id: str) -> str | None:
            agents = (await http.get("/api/v1/agents")).raise_for_status().json()["agents"]
            return next((agent["state"] for agent in agents if agent["id"] == agent_id), None)

        async def is_drained() -> bool:
            return await state(one_id) == "drained"

        await traffic.some_more()
        (await http.post(f"/api/v1/agent/{one_id}/drain")).raise_for_status()
        await wait_until(is_drained, timeout_s=30, what="what ran on it has ended")
        before = await fleet_queue.requests()
        await traffic.some_more()
        begun = await fleet_queue.requests("done") - before
        assert begun
        assert {name for request_id in begun for name in await fleet_queue.agent_names(request_id)} == {"two"}
        assert one.is_running
        assert await is_drained()

        (await http.post(f"/api/v1/agent/{one_id}/undrain")).raise_for_status()
        await wait_until(lambda: fleet_queue.num_given_to(one_id), timeout_s=30, what="it works again")
        (await http.delete(f"/api/v1/agent/{two_id}")).raise_for_status()
        await wait_until(lambda: not two.is_running, timeout_s=30, what="the removed one has ended")
        assert two.process.returncode == 0
        assert await fleet_queue.agents() == [one_id]
        await traffic.some_more()
        await traffic.end()

        assert len(traffic.answers) >= 36
        assert {(told.completion_tokens, *told.finish_reasons) for told in traffic.answers} == {(NUM_TOKENS, "stop")}
        assert (await http.get("/api/v1/requests")).json()["requests"] == []
        (await http.delete(f"/api/v1/agent/{one_id}", params={"force": "true"})).raise_for_status()
        await wait_until(lambda: not one.is_running, timeout_s=30, what="the last one has ended")
    assert await fleet_queue.demand() == 0
