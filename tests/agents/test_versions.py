"""An upgrade over three formats, each process a real one: neighbours work together, the others are refused.

Format 2 works beside 1; format 3 works beside 2 alone. What nobody could take over is handed to nobody.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from other_version import ENTRY
from story_harness import SCRIPTED, Command, Told, open_queue, openai_client

from paddler.presence import processes
from paddler.store.client import Store, connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), pytest.mark.xdist_group("real processes")]

FIRST, SECOND, THIRD = (1, 1), (2, 1), (3, 2)
ANYWHERE = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")
STORY = "[[tokens=60]] a story"


class Versions:
    """Processes of any format on one Redis."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self._folder = folder
        self._started: list[Command] = []

    def start(self, numbers: tuple[int, int], kind: str, *flags: str) -> Command:
        redis = ("--redis-url", self.store.url, "--redis-prefix", self.store.prefix)
        log = self._folder / f"{len(self._started)}-{kind}-{numbers[0]}.log"
        entry = (ENTRY, *map(str, numbers))
        command = Command(log, kind, *flags, *redis, entry=entry)
        self._started.append(command)
        return command

    def agent(self, numbers: tuple[int, int], name: str) -> Command:
        flags = ("--slots", "1", "--scripted-step", "20", "--lease", "1000", "--grace", "0", "--name", name)
        return self.start(numbers, "agent", *SCRIPTED, *flags)

    async def refused(self, numbers: tuple[int, int], kind: str, *flags: str) -> str:
        """Start what may not work, and return what it says when it ends with 78."""
        command = self.start(numbers, kind, *flags)
        await wait_until(lambda: not command.is_running, timeout_s=30, what=f"{command.name} ends")
        assert command.process.returncode == 78, command.text
        return command.text

    async def stop(self, command: Command) -> None:
        command.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: not command.is_running, timeout_s=15, what=f"{command.name} ends")
        assert command.process.returncode == 0, command.text

    def close(self) -> None:
        for command in self._started:
            if command.is_running:
                command.kill()


@pytest.fixture
async def versions(valkey: RedisServer, prefix: str, tmp_path: Path) -> AsyncIterator[Versions]:
    store = connect(valkey.url, prefix)
    running = Versions(store, tmp_path)
    yield running
    running.close()
    await store.redis.delete(*[key async for key in store.redis.scan_iter(f"{prefix}:*")])
    await store.close()


async def url_of(balancer: Command) -> str:
    return f"http://{(await balancer.logged('listening', service='inference'))['address']}"


async def tell(balancer: Command, text: str = STORY) -> str:
    async with openai_client(await url_of(balancer)) as client:
        return (await Told().ask(client, text, temperature=0)).text


async def agents_of(balancer: Command) -> list[dict[str, Any]]:
    address = (await balancer.logged("listening", service="management"))["address"]
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://{address}/api/v1/agents")).json()["agents"]


async def test_an_upgrade_over_three_formats(versions: Versions, prefix: str) -> None:
    old, old_agent = versions.start(FIRST, "balancer", *ANYWHERE), versions.agent(FIRST, "old")
    new, new_agent = versions.start(SECOND, "balancer", *ANYWHERE), versions.agent(SECOND, "new")
    for agent in (old_agent, new_agent):
        await agent.logged("registered")
    # Both ways at once: two streams of each balancer, on two slots of two formats.
    whole, *others = await asyncio.gather(tell(old), tell(new), tell(old), tell(new))
    assert [whole] * 3 == others
    assert len(whole.split()) == 60

    # In mid-stream the old agent hands over to the new one; then nothing of format 1 works but a balancer.
    telling = [asyncio.create_task(tell(balancer)) for balancer in (old, new)]
    async with open_queue(versions.store.url, prefix) as queue:
        await wait_until(lambda: queue_is_full(queue), what="both agents work")
    await versions.stop(old_agent)
    assert await asyncio.gather(*telling) == [whole, whole]

    # Format 3 does not come while a balancer of format 1 is there, and says which.
    early = versions.agent(THIRD, "early")
    said = await versions.refused(THIRD, "balancer", *ANYWHERE)
    assert "cannot work beside the balancer" in said
    assert "of format 1" in said
    await early.logged("this agent may not work here")
    assert await tell(old) == whole
    await versions.stop(old)
    newest = versions.start(THIRD, "balancer", *ANYWHERE)
    await url_of(newest)
    await early.logged("registered")
    await versions.stop(new_agent)
    assert await asyncio.gather(tell(new), tell(newest)) == [whole, whole]

    # From now on format 1 is refused, and an agent of it is there to be seen and takes nothing.
    late = versions.agent(FIRST, "late")
    assert "beside which none below 2 may work" in await versions.refused(FIRST, "worker")
    await late.logged("this agent may not work here")
    seen = {agent["name"]: agent for agent in await agents_of(newest)}
    assert (seen["early"]["state"], seen["late"]["state"]) == ("ready", "failed")
    assert "of format 1" in json.dumps(seen["late"]["issues"])
    # Two requests for one slot: the one that waits is not for the agent that stands aside.
    assert await asyncio.gather(tell(newest), tell(new)) == [whole, whole]
    said = [(process.kind, process.format) for process in await processes(versions.store)]
    assert sorted(said) == [("agent", 1), ("agent", 3), ("balancer", 2), ("balancer", 3)]


async def queue_is_full(queue: Any) -> bool:
    return await queue.num_given() == 2
