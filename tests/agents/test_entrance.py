"""Who may work is asked again and again: who slept through an upgrade must find out before it mends anything."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner
from fleet_harness import Fleet

from paddler.clock import SystemClock
from paddler.doctor import fleet_checks
from paddler.doctor.finding import Level
from paddler.entrance import Entrance, Incompatible, look
from paddler.errors import QueueUnavailable
from paddler.fleet_cli.agents import command as agents_command
from paddler.presence import Presence
from paddler.store.client import Store
from paddler.store.keys import worker_key
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from workers.maintenance.main import upkeep
from workers.maintenance.upkeep import Upkeep

pytestmark = pytest.mark.anyio

CLOCK = SystemClock()


@pytest.fixture
async def upgraded(fleet: Fleet) -> AsyncIterator[Store]:
    """A pool that belongs to format 8 and 9 from now on."""
    entrance = Entrance(fleet.store, CLOCK)
    await entrance.run_once()
    assert entrance.refusal is None
    await look(fleet.store)
    await fleet.store.redis.hset(fleet.pool.keys.format(), mapping={"number": 9, "oldest": 8, "version": "9.0"})
    yield fleet.store
    await fleet.store.redis.delete(fleet.pool.keys.format())


async def test_a_process_finds_out(upgraded: Store) -> None:
    entrance = Entrance(upgraded, CLOCK)
    with pytest.raises(Incompatible, match=r"by format 9 \(Paddler 9\.0\), beside which none below 8 may work"):
        await entrance.watch_loop()
    assert "Use a version of format 8 or later" in str(entrance.refusal)
    with pytest.raises(Incompatible):
        await look(upgraded)


async def test_a_command_is_refused(upgraded: Store) -> None:
    server = ["--redis-url", upgraded.url, "--redis-prefix", upgraded.prefix]
    ended = await asyncio.to_thread(CliRunner().invoke, agents_command, server)
    assert ended.exit_code == 78
    assert "Use a version of format 8 or later" in " ".join(ended.output.replace("│", " ").split())


async def test_an_autoscaler_is_refused(upgraded: Store) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddler", "autoscale", "--max", "1", "--redis-url", upgraded.url),
        *("--redis-prefix", upgraded.prefix, "--", "--engine", "scripted"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 78
    assert b"Use a version of format 8 or later" in told


async def test_the_doctor_tells(upgraded: Store, fleet: Fleet) -> None:
    await fleet.agent(lease_ms=500)
    [found] = [one for one in await fleet_checks.fleet(upgraded) if one.check == "agents"]
    assert found.level is Level.FAIL
    assert "test may not work here: VersionIncompatible" in found.said
    assert (await fleet_checks.formats(upgraded)).level is Level.FAIL
    await upgraded.redis.hset(fleet.pool.keys.format(), "oldest", 1)
    assert (await fleet_checks.formats(upgraded)).level is Level.OK


async def test_no_upkeep_by_a_worker_that_was_left_behind(upgraded: Store) -> None:
    entrance = Entrance(upgraded, CLOCK)
    await upkeep({"entrance": entrance, "upkeep": Upkeep(upgraded, CLOCK, lease_ms=500)})
    assert entrance.refusal is not None
    assert not await upgraded.redis.exists(worker_key(upgraded.prefix)), "not even its sign of life"


async def test_a_balancer_that_was_left_behind_submits_nothing(upgraded: Store, fleet: Fleet) -> None:
    gateway = await fleet.gateway()
    with pytest.raises(QueueUnavailable, match="of a version that may not work here"):
        await gateway.submit("default", Generate(prompt="hello"))
    assert await fleet.is_idle()


async def test_an_agent_stands_aside_and_comes_back(upgraded: Store, fleet: Fleet) -> None:
    agent = await fleet.agent(lease_ms=500)
    keys = fleet.pool.keys
    state, issues = await upgraded.redis.hmget(keys.agent(agent.loop.agent_id), "state", "issues")
    assert state == b"failed"
    assert b"VersionIncompatible" in issues
    assert await upgraded.redis.zcard(keys.free()) == 0
    assert not await upgraded.redis.exists(keys.lane(agent.loop.agent_id))
    shown = agent.loop.agent_id
    await upgraded.redis.hset(keys.format(), "oldest", 1)
    await wait_until(lambda: upgraded.redis.zcard(keys.free()), what="it has slots")
    assert not await upgraded.redis.exists(keys.agent(shown)), "nothing is left of it standing there"
    gateway = await fleet.gateway()
    async with await gateway.submit("default", Generate(prompt="[[tokens=2]] hello")) as reply:
        assert [frame async for frame in reply]


async def test_who_stands_aside_leaves_without_a_trace(upgraded: Store, fleet: Fleet) -> None:
    agent = await fleet.agent(lease_ms=500)
    await agent.leave()
    keys = fleet.pool.keys
    assert await upgraded.redis.exists(keys.agents(), keys.agent(agent.loop.agent_id)) == 0


async def test_older_processes_are_named_before_they_are_shut_out(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells its format only by not telling it, too."""
    await Presence(fleet.store, CLOCK, "worker", "nightly").run_once()
    monkeypatch.setattr("paddler.entrance.OLDEST_FORMAT", 2)
    with pytest.raises(Incompatible, match="cannot work beside the worker nightly"):
        await Entrance(fleet.store, CLOCK).run_once()
