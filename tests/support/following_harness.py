"""Agents that follow the desired state of their pool, in the test's process: all of it is real but the engine."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fleet_harness import Fleet

from paddler.clock import SystemClock
from paddler.desired.schema import BalancerDesiredState, GivenModel
from paddler.desired.store import DesiredStates
from paddler.engine import Engine
from paddler.engine_settings import EngineSettings
from paddler.store.client import connect
from paddler.store.scripts import PoolScripts
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from workers.agent.builds import check_scripted
from workers.agent.fetch.cache import ModelCache
from workers.agent.following import Follower
from workers.agent.loader import Build
from workers.agent.phases import Report
from workers.agent.preparation import Preparation
from workers.agent.serving import AgentSettings, Signals
from workers.agent.standing import Standing
from workers.agent.wanted import follow_states, settings_for

SLOTS = 2
_READY = """
local ready = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1] .. ':agents', 0, -1)) do
  local fields = redis.call('HMGET', KEYS[1] .. ':agent:' .. id, 'state', 'slots')
  if fields[1] == 'ready' then ready = ready + tonumber(fields[2]) end
end
return ready
"""


async def num_ready_slots(pool: PoolScripts) -> int:
    """At one moment: of agents read one after the other a change of turns may be seen from both sides."""
    return int(await pool.redis.eval(_READY, 1, pool.keys.base))


MakeEngine = Callable[[EngineSettings], Engine]


class FollowingAgent:
    """`make` is called in the thread of the load. `hash` is what Redis has of it under its present id."""

    def __init__(
        self, fleet: Fleet, folder: Path, name: str, make: MakeEngine, *, grace_ms: int, step_s: float
    ) -> None:
        self.name = name
        self.engines: list[weakref.ref[Engine]] = []
        self._fleet = fleet
        self._make = make
        self._step_s = step_s
        self._store = connect(fleet.url, fleet.prefix)
        clock, self._signals, self.standing = SystemClock(), Signals(), Standing(SystemClock())
        settings = AgentSettings(
            pool="default",
            name=name,
            lease_ms=5000,
            grace_ms=grace_ms,
            flush_ms=0,
            hang_ms=60_000,
            waits=True,
            files=(),
            slots=SLOTS,
            process_id=f"process-{name}",
        )
        self.preparation = Preparation(
            partial(follow_states, DesiredStates(self._store, clock), "default"),
            ModelCache(root=folder / "cache"),
            partial(settings_for, slots=SLOTS, own={}, lone_step_s=1.0),
            check_scripted,
            self.standing,
            clock,
        )
        follower = Follower(
            self._store, settings, self.preparation, self._build_of, self.standing, clock, self._signals
        )
        self.task = asyncio.create_task(follower.run())

    def _build_of(self, settings: EngineSettings) -> Build:
        def build(_report: Report, _is_suspect: bool) -> Engine:
            engine = self._make(settings)
            self.engines.append(weakref.ref(engine))
            return engine

        return build

    @property
    async def hash(self) -> dict[str, str]:
        keys = self._fleet.pool.keys
        for agent in await self._fleet.pool.redis.zrange(keys.agents(), 0, -1):
            found = await self._fleet.pool.redis.hgetall(keys.agent(agent.decode()))
            if found.get(b"name") == self.name.encode():
                return {"id": agent.decode(), **{key.decode(): value.decode() for key, value in found.items()}}
        return {}

    async def is_told(self, **fields: object) -> dict[str, str]:
        """Wait until its hash says so."""
        wanted = {name: str(value) for name, value in fields.items()}

        async def find() -> dict[str, str] | None:
            assert not self.task.done(), self.task.result()
            found = await self.hash
            return found if wanted.items() <= found.items() else None

        return await wait_until(find, poll_s=0.02, what=f"{self.name} is {wanted}")

    async def serves(self, model: str, version: int) -> dict[str, str]:
        told = {"state_application_status": "Applied", "applied_version": version, "state": "ready"}
        return await self.is_told(model=model, **told)

    async def stop(self) -> None:
        self._signals.stopping.set()
        if not self.task.done():
            assert await self.task == 0
        await self._store.close()


class FollowingFleet:
    """Agents beside a fleet's gateway, and the state that they follow; models are files of a few bytes."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.agents: list[FollowingAgent] = []
        self._states = DesiredStates(fleet.store)

    def model(self, name: str, content: bytes = b"GGUF") -> GivenModel:
        path = self.folder / f"{name}.gguf"
        path.write_bytes(content)
        return GivenModel(LocalToAgent=str(path))

    async def put(self, model: GivenModel | None, **fields: Any) -> int:
        state = BalancerDesiredState(model="None" if model is None else model, **fields)
        return await self._states.write("default", state, expected=None, author="test")

    def agent(
        self, name: str = "one", make: MakeEngine | None = None, *, grace_ms: int = 0, step_s: float = 0.005
    ) -> FollowingAgent:
        make = make or partial(scripted, step_s=step_s)
        self.agents.append(FollowingAgent(self.fleet, self.folder, name, make, grace_ms=grace_ms, step_s=step_s))
        return self.agents[-1]

    async def num_ready_slots(self) -> int:
        return await num_ready_slots(self.fleet.pool)

    async def close(self) -> None:
        for agent in self.agents:
            await agent.stop()


def scripted(settings: EngineSettings, *, step_s: float) -> ScriptedEngine:
    """Named after its file, and with a vocabulary of its own: what another has said reaches it as text."""
    name = Path(settings.model_path).stem
    return ScriptedEngine(slots=settings.slots, model=name, step_s=step_s, vocabulary=f"{name}'s")
