"""A fleet in one process: real Valkey, the real gateway and the real agent loop, engines as a test likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from paddler.clock import SystemClock
from paddler.engine import Engine
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.model_facts import encode_facts
from paddler.store.client import Store, connect
from paddler.testing.scripted import ScriptedEngine
from workers.agent.loop import KV_GRACE_S, AgentLoop


class RunningAgent:
    """An agent whose loops run here. `kill` is what SIGKILL does to it, as far as Redis can tell."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        lease_ms: int,
        process: str = "",
        on_removed: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        facts = engine.info.facts
        snapshot = {
            "abilities": " ".join(engine.info.abilities),
            "facts": "" if facts is None else encode_facts(facts),
            **({"process_id": process} if process else {}),
        }
        self.loop = AgentLoop(
            store,
            store.pool("default"),
            engine,
            SystemClock(),
            name="test",
            lease_ms=lease_ms,
            snapshot=snapshot,
            on_removed=on_removed,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.loop.engine.start_thread()
        await self.loop.register()
        self._tasks = [asyncio.create_task(loop) for loop in self.loop.loops()]

    @property
    def is_running(self) -> bool:
        return not all(task.done() for task in self._tasks)

    async def kill(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.loop.engine.stop, 2.0)
        await self.store.close()

    async def leave(self, grace_s: float = 0.0, kv_grace_s: float = KV_GRACE_S) -> None:
        await self.loop.leave(grace_s, kv_grace_s)
        await self.kill()


class Fleet:
    """Starts balancers and agents on one Redis; everything is stopped after the test."""

    def __init__(self, url: str, prefix: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.prefix = prefix
        self.store = connect(url, prefix)
        self.pool = self.store.pool("default")
        self.agents: list[RunningAgent] = []
        self._stack = stack

    async def gateway(self, *, cancel_on_stop: bool = True, **settings: Any) -> Gateway:
        store = connect(self.url, self.prefix)
        gateway = Gateway(store, GatewaySettings(cancel_on_stop=cancel_on_stop, **settings), SystemClock())
        await gateway.start()

        async def close() -> None:
            await gateway.close()
            await store.close()

        self._stack.push_async_callback(close)
        return gateway

    async def agent(
        self,
        *,
        slots: int = 2,
        step_s: float = 0.0,
        lease_ms: int = 1000,
        engine: Engine | None = None,
        process: str = "",
        on_removed: Callable[[], None] = lambda: None,
    ) -> RunningAgent:
        engine = engine or ScriptedEngine(slots=slots, step_s=step_s)
        agent = RunningAgent(connect(self.url, self.prefix), engine, lease_ms, process, on_removed)
        await agent.start()
        self.agents.append(agent)
        return agent

    async def num_waiting(self) -> int:
        return await self.pool.redis.xlen(self.pool.keys.buffer())

    async def demand(self) -> int:
        return await self.pool.redis.xlen(self.pool.keys.demand())

    async def is_idle(self) -> bool:
        return await self.demand() == 0

    async def close(self) -> None:
        for agent in self.agents:
            if agent.is_running:
                await agent.leave()
        await self.store.close()
