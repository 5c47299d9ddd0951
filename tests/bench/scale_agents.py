"""Many agents in one process: each with its own connections, lease, thread and loops, as `paddler agent` composes them.

Started by `tests.bench.scale` with an `Order` as JSON on standard input; ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import msgspec
import uvloop
from msgspec import Struct

from paddler import logs
from paddler.clock import SystemClock
from paddler.ids import new_process_id
from paddler.presence import present
from paddler.store.client import connect
from paddler.testing.scripted import ScriptedEngine
from workers.agent.serving import AgentSettings, Signals, serve_engine

LEASE_MS = 5000
MONITORING_MS = 10_000
AT_ONCE = 50
"""Agents that register at the same time."""


class Order(Struct, kw_only=True):
    """Times are those of `paddler agent` where none is given. `slots`, `step_ms` and `flush_ms` are of each agent."""

    redis_url: str
    prefix: str
    first: int
    number: int
    slots: int
    step_ms: float
    flush_ms: int = 20


async def run(order: Order) -> None:
    stopping, gate = asyncio.Event(), asyncio.Semaphore(AT_ONCE)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    agents = [asyncio.create_task(_agent(order, order.first + n, stopping, gate)) for n in range(order.number)]
    await stopping.wait()
    await asyncio.gather(*agents)


async def _agent(order: Order, number: int, stopping: asyncio.Event, gate: asyncio.Semaphore) -> None:
    store, clock, signals = connect(order.redis_url, order.prefix), SystemClock(), Signals()
    signals.stopping = stopping
    settings = AgentSettings(
        pool="default",
        name=f"agent-{number}",
        lease_ms=LEASE_MS,
        grace_ms=0,
        flush_ms=order.flush_ms,
        hang_ms=60_000,
        waits=True,
        files=(),
        slots=order.slots,
        process_id=new_process_id("process"),
        monitoring_ms=MONITORING_MS,
    )
    async with gate:
        engine = ScriptedEngine(slots=order.slots, step_s=order.step_ms / 1000, context_size=100_000)
        await store.redis.ping()
    async with present(store, clock, "agent", settings.name):
        await serve_engine(store, engine, settings, clock, signals)
    await store.close()


def main() -> None:
    logs.configure("agent", "error", "json")
    uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))


if __name__ == "__main__":
    main()
