"""The fleet that the panel's benchmark looks at: a Valkey and a balancer, each a real process, and hundreds of agents
that this process plays: registrations, leases, claims, frames and ends, through the real scripts, without engines."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from api.openai.label import ChatLabel, encode_label
from paddler.ids import new_process_id, new_request_id
from paddler.store.client import Store, connect
from paddler.store.results import Disposition, Emission, Outcome, Submission
from paddler.store.scripts import PoolScripts
from paddler.testing.servers import RedisServer
from paddler.wire.agent import Generate, encode_payload
from paddler.wire.balancer import Finished, FinishReason, Opened, Prefilled, Tokens, Usage, encode_frame
from tests.bench.queue_fleet import PREFIX, Child, new_valkey

LEASE_MS = 3_600_000
TICK_S = 0.25
RENEW_S = 10.0
"""How often an agent tells of itself, as `--monitoring-interval` has it."""

AT_ONCE = 200
TENANTS = [f"tenant-{number:02}" for number in range(20)]
MODEL = "SmolLM2-135M-Instruct-Q4_K_M"


class Running:
    def __init__(self, agent: str, attempt: int, offset: int) -> None:
        self.agent = agent
        self.attempt = attempt
        self.offset = offset


class Crowd:
    """Agents and requests of the pool `default`."""

    def __init__(self, store: Store, *, agents: int, slots: int, waiting: int, seed: int = 0) -> None:
        self._pool: PoolScripts = store.pool("default")
        self._redis: Any = store.redis
        self._chance = random.Random(seed)
        self._slots = slots
        self._num_waiting = waiting
        self.agents = [new_process_id("agent") for _ in range(agents)]
        self.running: dict[str, Running] = {}
        self._payload = encode_payload(Generate(prompt="hello"))
        self.num_ended = 0

    async def fill(self) -> None:
        """Returns once all agents are there, all slots are busy, and so many wait."""
        for first in range(0, len(self.agents), AT_ONCE):
            some = enumerate(self.agents[first : first + AT_ONCE], first)
            await asyncio.gather(*(self._register(agent, number) for number, agent in some))
        total = len(self.agents) * self._slots + self._num_waiting
        for first in range(0, total, AT_ONCE):
            await asyncio.gather(*(self._submit() for _ in range(min(AT_ONCE, total - first))))
        for first in range(0, len(self.agents), AT_ONCE):
            await asyncio.gather(*map(self._take, self.agents[first : first + AT_ONCE]))

    async def move(self, *, ends_per_s: float, frames_per_s: float) -> None:
        """Let requests speak, end and come for ever, and agents tell of themselves."""
        due = 0.0
        while True:
            began = time.monotonic()
            running = list(self.running.items())
            speaking = self._chance.sample(running, min(len(running), round(frames_per_s * TICK_S)))
            await asyncio.gather(*(self._say(request_id, one) for request_id, one in speaking))
            due += ends_per_s * TICK_S
            ending = self._chance.sample(list(self.running), min(len(self.running), int(due)))
            due -= int(due)
            await asyncio.gather(*map(self._end, ending))
            some = self._chance.sample(self.agents, min(len(self.agents), round(len(self.agents) * TICK_S / RENEW_S)))
            await asyncio.gather(*map(self._renew, some))
            await asyncio.sleep(max(0.0, began + TICK_S - time.monotonic()))

    async def _register(self, agent: str, number: int) -> None:
        """What a real agent tells of itself (`paddler/jobs/lanes.py` reads it)."""
        snapshot: dict[str, Any] = {
            "slots": self._slots,
            "desired_slots": self._slots,
            "state": "ready",
            "name": f"gpu-{number:03}",
            "host": f"node-{number // 8:03}.example.org",
            "pid": 1000 + number,
            "abilities": "generate embed",
            "model": MODEL,
            "model_path": f"/models/{MODEL}.gguf",
            "context_size": 8192,
            "version": "0.1.0",
            "build": "b6700 (AVX-512)",
            "state_application_status": "Applied",
            "desired_version": 3,
            "uses_chat_template_override": 0,
            "prefill": 1800.0,
            **self._measured(),
        }
        await self._pool.register(agent, lease_ms=LEASE_MS, model=MODEL, seen_s=int(time.time()), snapshot=snapshot)

    def _measured(self) -> dict[str, Any]:
        prompt = self._chance.randrange(10_000, 1_000_000)
        cached = round(prompt * self._chance.uniform(0.3, 0.9))
        return {"rate": self._chance.uniform(20, 90), "prompt_tokens": prompt, "cached_tokens": cached}

    async def _renew(self, agent: str) -> None:
        await self._pool.renew(agent, lease_ms=LEASE_MS, snapshot=self._measured())

    async def _submit(self) -> None:
        chosen = self._chance.choices(("interactive", "normal", "batch"), (2, 7, 1))[0]
        submission = Submission(
            request_id=new_request_id("default"),
            request_class=chosen,
            tenant=self._chance.choice(TENANTS),
            payload=self._payload,
            inbox="nobody",
            start_timeout_ms=0,
            max_waiting=1_000_000,
            is_background=True,
            prompt_tokens=self._chance.randrange(10, 4000),
            output_tokens=256,
            label=encode_label(ChatLabel(MODEL, int(time.time()))),
        )
        await self._pool.submit(submission)

    async def _take(self, agent: str) -> None:
        """Begin what this agent was given."""
        lane = self._pool.keys.lane(agent)
        found = await self._redis.xreadgroup("agent", agent, {lane: ">"})
        for _, entries in found:
            for _, fields in entries:
                request_id, attempt = fields[b"id"].decode(), int(fields[b"attempt"])
                opened = await self._pool.open(agent, request_id, attempt, encode_frame(Opened("bench", attempt)))
                if opened.disposition is Disposition.OK:
                    running = self.running[request_id] = Running(agent, attempt, len(opened.journal))
                    await self._emit(request_id, running, encode_frame(Prefilled(100, 40)))

    async def _say(self, request_id: str, running: Running) -> None:
        await self._emit(request_id, running, encode_frame(Tokens((1, 2), " hello again")))

    async def _emit(self, request_id: str, running: Running, frames: bytes) -> None:
        emission = Emission(request_id, running.attempt, running.offset, frames)
        (placed,) = await self._pool.emit(running.agent, [emission])
        if placed.disposition is Disposition.OK:
            running.offset = placed.length
        else:
            self.running.pop(request_id, None)  # it was cancelled
            await self._settle(request_id, running, FinishReason.CANCELLED)

    async def _end(self, request_id: str) -> None:
        """And another comes for it, so that as many wait as before."""
        await self._settle(request_id, self.running.pop(request_id), FinishReason.STOP)
        self.num_ended += 1
        await self._submit()

    async def _settle(self, request_id: str, running: Running, reason: FinishReason) -> None:
        usage = Usage(100, 60, 40)
        outcome = Outcome.CANCELLED if reason is FinishReason.CANCELLED else Outcome.DONE
        last = Emission(request_id, running.attempt, running.offset, encode_frame(Finished(reason, usage)))
        await self._pool.settle(running.agent, last, outcome, usage)
        await self._take(running.agent)


class PanelFleet:
    """`url` is the panel's."""

    def __init__(self, url: str, balancer: Child, crowd: Crowd, valkey: RedisServer) -> None:
        self.url = url
        self.balancer = balancer
        self.crowd = crowd
        self.valkey = valkey


@contextlib.asynccontextmanager
async def panel_fleet(folder: Path, *, agents: int, slots: int, waiting: int) -> AsyncGenerator[PanelFleet]:
    server = new_valkey()
    children: list[Child] = []
    try:
        server.start()
        anywhere = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")
        where = ("--redis-url", server.url, "--redis-prefix", PREFIX, "--web-admin-panel-addr", "127.0.0.1:0")
        children.append(Child(folder / "balancer.log", "balancer", *anywhere, *where))
        record = await asyncio.to_thread(children[0].wait_for, "listening", service="panel")
        store = connect(server.url, PREFIX)
        try:
            crowd = Crowd(store, agents=agents, slots=slots, waiting=waiting)
            await crowd.fill()
            yield PanelFleet(f"http://{record['address']}", children[0], crowd, server)
        finally:
            await store.close()
    finally:
        for child in children:
            child.stop()
        server.close()
