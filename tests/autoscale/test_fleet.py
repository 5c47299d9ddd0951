"""Autoscalers as processes, with real agents, on a real Valkey. The poll comes once an hour: whatever happens here was
not seen by it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from autoscale_harness import Scaled, scaled_pool
from fleet_harness import Fleet
from up_harness import is_alive

from paddler.autoscale.instance import Phase
from paddler.autoscale.loop import STANDS_BY
from paddler.autoscale.record import Record
from paddler.jobs.gateway import Gateway
from paddler.jobs.lanes import Lane
from paddler.store.client import connect
from paddler.testing.servers import RedisServer
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
    """An agent for two unfinished requests: of three two run, on two agents. When one of the three is cancelled one
    agent is enough, and the other goes in the middle of its only request, which ends there."""
    await scaled.acting("--max", "2", "--target-demand-per-slot", "2", *AGENTS)
    assert await scaled.lanes() == []
    for_long = Asked(gateway, 8000)
    await wait_until(for_long.begun.is_set, timeout_s=60, what="the first request has an agent")
    assert await scaled.names() == ["auto-1"]
    two = [Asked(gateway, 600), Asked(gateway, 600)]
    await wait_until(lambda: any(one.begun.is_set() for one in two), timeout_s=60, what="the second agent has one")
    for_long.task.cancel()

    def has_draining(record: Record) -> bool:
        return Phase.DRAINING in phases(record).values()

    record = await scaled.record(has_draining, "an agent drains")
    (name,) = [name for name, phase in phases(record).items() if phase is Phase.DRAINING]

    async def draining() -> Lane | None:
        return next((lane for lane in await scaled.lanes() if lane.name == name and lane.is_draining), None)

    lane = await wait_until(draining, what="Redis has the order")
    assert lane.requests == 1, "it drains in the middle of a generation"
    assert is_alive(lane.pid)
    ended = [await one.ended() for one in two]
    assert sorted(ended) == [["auto-1"], ["auto-2"]], "nothing was handed over"
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
    await second.logged("does not act", why=STANDS_BY)
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


async def test_commands_of_an_operator_start_and_stop_agents(scaled: Scaled, gateway: Gateway, tmp_path: Path) -> None:
    """The first start fails. The agent outlives its autoscaler; the next one ends it when it is drained and idle."""
    calls, pids = tmp_path / "calls", tmp_path / "pids"
    note = f'echo "$AUTOSCALE_ACTION $PADDLER_NAME" >>{calls}'
    agent = f"{sys.executable} -P -m paddler agent --engine scripted --scripted-step 10"
    start = f"{note}; [ $(wc -l <{calls}) -gt 1 ] || exit 7; {agent} >{tmp_path}/agent.log 2>&1 & echo $! >{pids}"
    stop = f'{note}; echo "$AUTOSCALE_AGENT_ID" >>{pids}; kill "$AUTOSCALE_AGENT_PID"'
    flags = ("--driver", "exec", "--start-command", start, "--stop-command", stop)
    first = await scaled.acting("--max", "1", "--command-retries", "1", *flags)
    asked = Asked(gateway, 300)
    await wait_until(asked.begun.is_set, timeout_s=60, what="it has begun")
    (lane,) = await scaled.lanes()
    first.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.process.wait, 30) == 0
    assert is_alive(lane.pid)
    await scaled.acting("--max", "1", *flags)
    assert await asked.ended() == ["auto-1"]
    await scaled.has()
    await scaled.record(lambda found: not found.instances, "it is done with it")
    assert calls.read_text().splitlines() == ["start auto-1", "start auto-1", "stop auto-1"]
    assert pids.read_text().splitlines() == [str(lane.pid), lane.agent]


async def test_an_outage_of_redis_ends_nobody(tmp_path: Path, prefix: str, valkey: RedisServer) -> None:
    """It lasts longer than the cooldown. Afterwards everything goes on: the request, its agent, and its end."""
    server = RedisServer(valkey.binary, appendfsync="always")
    server.start()
    store = connect(server.url, prefix)
    try:
        async with AsyncExitStack() as stack, scaled_pool(store, tmp_path) as scaled:
            fleet = Fleet(server.url, prefix, stack)
            stack.push_async_callback(fleet.close)
            gateway = await fleet.gateway(buffered_request_timeout_ms=60_000)
            command = await scaled.acting("--max", "1", *AGENTS)
            asked = Asked(gateway, 500)
            await wait_until(asked.begun.is_set, timeout_s=60, what="it has begun")
            (lane,) = await scaled.lanes()
            server.kill()
            await command.logged("the pool cannot be seen: no agent is started or stopped until it can")
            server.start()
            await command.logged("Redis answers again")
            assert set(await asked.ended()) == {"auto-1"}
            await scaled.has()
            assert command.text.count('"event":"starting"') == 1
            await wait_until(lambda: not is_alive(lane.pid), what="it is not needed any more")
    finally:
        await store.close()
        server.close()
