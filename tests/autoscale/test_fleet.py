"""Autoscalers as processes, with real agents, on a real Valkey. The poll comes once an hour: whatever happens here was
not seen by it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from autoscale_harness import Scaled
from up_harness import is_alive

from paddler.autoscale.instance import Phase
from paddler.autoscale.record import Record
from paddler.jobs.gateway import Gateway
from paddler.jobs.lanes import Lane
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, Opened, Tokens

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

AGENTS = ("--", "--engine", "scripted", "--lease", "1000", "--scripted-step", "10")


class Asked:
    """A request, and what has come of it."""

    def __init__(self, gateway: Gateway, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self.opened: list[Opened] = []
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._ask(gateway))

    async def _ask(self, gateway: Gateway) -> int:
        num_tokens, last = 0, None
        async with await gateway.submit("default", Generate(prompt=f"[[tokens={self.num_tokens}]]")) as reply:
            async for last in reply:
                if isinstance(last, Opened):
                    self.opened.append(last)
                if isinstance(last, Tokens):
                    num_tokens += len(last.ids)
                    self.begun.set()
        assert isinstance(last, Finished)
        return num_tokens

    async def ended(self) -> list[str]:
        """Wait for its end, whole: the agents that have worked on it."""
        assert await self.task == self.num_tokens
        return [frame.agent_name for frame in self.opened]


def phases(record: Record) -> dict[str, Phase]:
    return {one.name: one.phase for one in record.instances}


async def test_the_next_request_starts_agents_and_they_go_when_their_work_is_done(
    scaled: Scaled, gateway: Gateway
) -> None:
    """Two slots are too many for two requests when each is to have two, so an agent goes in the middle of its only one,
    which ends there."""
    await scaled.acting("--max", "2", "--target-demand-per-slot", "2", *AGENTS)
    assert await scaled.lanes() == []
    short = Asked(gateway, 5)
    await wait_until(lambda: short.opened, timeout_s=60, what="the first request has an agent")
    assert await scaled.names() == ["auto-1"]
    long = [Asked(gateway, 600), Asked(gateway, 600), Asked(gateway, 5)]
    await wait_until(lambda: long[1].begun.is_set() or long[2].begun.is_set(), timeout_s=60, what="a second agent")
    assert await short.ended() == ["auto-1"]

    def has_draining(record: Record) -> bool:
        return Phase.DRAINING in phases(record).values()

    record = await scaled.record(has_draining, "an agent drains")
    (name,) = [name for name, phase in phases(record).items() if phase is Phase.DRAINING]

    async def busy() -> Lane | None:
        return next((lane for lane in await scaled.lanes() if lane.name == name and lane.is_draining), None)

    lane = await wait_until(busy, what="Redis has the order")
    assert lane.requests == 1, "it drains in the middle of a generation"
    ended = [await one.ended() for one in long]
    assert all(len(names) == 1 for names in ended), "nothing was handed over"
    assert [name] in ended
    await scaled.has()
    await scaled.record(lambda found: not found.instances, "both are gone")
    assert not is_alive(lane.pid)


async def test_an_agent_that_dies_is_replaced(scaled: Scaled, gateway: Gateway) -> None:
    """Its request goes on with the next one, which reaps it."""
    await scaled.acting("--max", "1", *AGENTS)
    asked = Asked(gateway, 200)
    await wait_until(asked.begun.is_set, timeout_s=60, what="it has begun")
    (lane,) = await scaled.lanes()
    os.kill(lane.pid, signal.SIGKILL)
    assert await asked.ended() == ["auto-1", "auto-1"]
    assert asked.opened[-1].attempt > asked.opened[0].attempt
    record = await scaled.record(lambda found: found.failures == 1, "it was not steady")
    assert record.trouble == "auto-1 was killed by SIGKILL"
    await scaled.has()


async def test_an_autoscaler_that_is_killed_leaves_agents_that_the_next_one_finds(
    scaled: Scaled, gateway: Gateway
) -> None:
    """Of two one acts. When it is killed its agent serves on, and the other one stops it when it is needed no more."""
    first = await scaled.acting("--max", "2", *AGENTS)
    second = scaled.start("--max", "2", *AGENTS)
    asked = Asked(gateway, 1000)
    await wait_until(asked.begun.is_set, timeout_s=60, what="it has begun")
    (lane,) = await scaled.lanes()
    assert "starting" not in second.text
    first.kill()
    await second.logged("acts for the pool")
    assert await asked.ended() == ["auto-1"], "the agent knows nothing of it"
    await scaled.has()
    await wait_until(lambda: not is_alive(lane.pid), what="its process has ended")
    assert '"starting"' not in second.text


async def test_local_agents_end_with_their_autoscaler(scaled: Scaled, gateway: Gateway) -> None:
    """As on any SIGTERM of an agent: what runs has its grace time, and ends there."""
    command = await scaled.acting("--min", "1", "--max", "1", *AGENTS)
    asked = Asked(gateway, 100)
    await wait_until(asked.begun.is_set, timeout_s=60, what="it has begun")
    (lane,) = await scaled.lanes()
    command.process.send_signal(signal.SIGTERM)
    assert await asked.ended() == ["auto-1"]
    assert await asyncio.to_thread(command.process.wait, 30) == 0
    assert not is_alive(lane.pid)
    assert await scaled.lanes() == []
    assert await scaled.records.holder() == "", "another one may act at once"
