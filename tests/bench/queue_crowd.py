"""What a call costs when many agents hold the beginning of every prompt: the usual case, as they share a system prompt.

Times are taken in the caller, the round trip included: of `submit` while the holders have free slots, of `submit` while
none has, and of a `claim` by an agent that holds nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from paddler.store.client import Store, connect
from paddler.store.scripts import PoolScripts
from tests.bench.queue_client import Quantiles, quantiles
from tests.bench.queue_fleet import new_valkey
from tests.bench.queue_scripts import LEASE_MS, OTHER, register, shared_hashes, submit


class Crowd(Struct, kw_only=True):
    agents: int
    submit_free_us: Quantiles
    submit_busy_us: Quantiles
    claim_us: Quantiles


async def measure_crowds(sizes: Sequence[int], cycles: int) -> list[Crowd]:
    server = new_valkey()
    server.start()
    store = connect(server.url, "bench")
    try:
        return [await _measure(store, size, cycles) for size in sizes]
    finally:
        await store.close()
        server.close()


async def _measure(store: Store, size: int, cycles: int) -> Crowd:
    pool = store.pool(f"crowd{size}")
    holders = [f"agent-{number}" for number in range(size)]
    for agent in holders:
        await register(pool, agent)
        await pool.hold(agent, ttl_ms=LEASE_MS, added=shared_hashes())
        await _set_slots(pool, agent, cycles)
    free = await _timed(cycles, lambda number: submit(pool, number))
    for agent in holders:
        await _set_slots(pool, agent, 0)
    busy = await _timed(cycles, lambda number: submit(pool, cycles + number))
    await register(pool, OTHER)
    await pool.redis.hset(pool.keys.agent(OTHER), "slots", cycles)
    claim = await _timed(cycles, lambda _: pool.claim(OTHER))
    return Crowd(agents=size, submit_free_us=free, submit_busy_us=busy, claim_us=claim)


async def _set_slots(pool: PoolScripts, agent: str, number: int) -> None:
    await pool.renew(agent, lease_ms=LEASE_MS, snapshot={"slots": number})


async def _timed(cycles: int, call: Callable[[int], Awaitable[Any]]) -> Quantiles:
    taken: list[float] = []
    for number in range(cycles):
        begin = time.perf_counter()
        await call(number)
        taken.append((time.perf_counter() - begin) * 1e6)
    return quantiles(taken)
