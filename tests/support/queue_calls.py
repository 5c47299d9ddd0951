"""Short names for what tests of the scripts do again and again; time is an argument everywhere."""

from __future__ import annotations

import os
import random
from typing import Any

from paddler.ids import new_request_id
from paddler.jobs.chains import pack_chain
from paddler.jobs.endings import CANCELLED_FRAME, DEAD_FRAME
from paddler.routing.prefix import prefix_chain
from paddler.store.results import Claimed, Disposition, Emission, Outcome, Reaped, Submission, Submitted
from paddler.store.scripts import PoolScripts
from paddler.wire.agent import Generate
from paddler.wire.balancer import Finished, FinishReason, Opened, Usage, encode_frame

NOW = 1_000_000
LEASE = 5_000
USAGE = Usage(7, 2, 0)
END = encode_frame(Finished(FinishReason.STOP, USAGE))


IS_FULL = os.environ.get("PADDLER_TEST_SIZE") == "full"
"""Whether random tests run in their full size (`make test-full`)."""


def random_source() -> random.Random:
    """The same numbers every time, but for `make test-full` and for whoever sets PADDLER_TEST_SEED: what is found by
    chance must not stop a commit that has nothing to do with it."""
    seed = int(os.environ.get("PADDLER_TEST_SEED", "0")) or (random.randrange(2**32) if IS_FULL else 1)
    print(f"PADDLER_TEST_SEED={seed}")
    return random.Random(seed)


def chain_of(text: str) -> bytes:
    """The packed chain of a raw prompt, at one byte a token."""
    return pack_chain(prefix_chain(Generate(prompt=text), pool="default", tenant=None), 1.0)


def hashes_of(text: str) -> list[str]:
    packed = chain_of(text)
    return [packed[at : at + 11].decode() for at in range(0, len(packed), 15)]


async def submit(pool: PoolScripts, *, now: float = NOW, prompt: str = "", **options: Any) -> tuple[str, Submitted]:
    """Submit one request; a `prompt` gives it a prefix chain."""
    if prompt:
        options = {"chain": chain_of(prompt), "prompt_tokens": len(prompt), **options}
    values: dict[str, Any] = {
        "request_id": new_request_id("default"),
        "request_class": "normal",
        "tenant": "anonymous",
        "payload": b"payload",
        "inbox": "inbox",
        "start_timeout_ms": 0,
        "max_waiting": 100_000,
        **options,
    }
    return values["request_id"], await pool.submit(Submission(**values), now_ms=now)


async def register(
    pool: PoolScripts, agent: str, *, slots: int = 2, now: float = NOW, prefill: float = 1000.0
) -> Claimed:
    snapshot: dict[str, int | str | float | bytes] = {"slots": slots, "state": "ready", "prefill": prefill}
    return await pool.register(agent, lease_ms=LEASE, model="m", seen_s=1, snapshot=snapshot, now_ms=now)


async def hold(pool: PoolScripts, agent: str, prompt: str, *, now: float = NOW) -> None:
    assert await pool.hold(agent, ttl_ms=300_000, added=hashes_of(prompt), now_ms=now)


async def take(pool: PoolScripts, agent: str) -> list[tuple[str, int]]:
    """Tickets newly delivered on the agent's lane."""
    lanes = await pool.redis.xreadgroup("agent", agent, {pool.keys.lane(agent): ">"})
    return [(f[b"id"].decode(), int(f[b"attempt"])) for _, entries in lanes for _, f in entries]


async def begin(pool: PoolScripts, agent: str, request_id: str, attempt: int, *, now: float = NOW) -> int:
    opened = await pool.open(agent, request_id, attempt, encode_frame(Opened("a", attempt)), now_ms=now)
    assert (opened.disposition, opened.payload) == (Disposition.OK, b"payload"), opened
    return len(opened.journal)


async def settle(
    pool: PoolScripts, agent: str, request_id: str, attempt: int, offset: int, *, now: float = NOW
) -> None:
    last = Emission(request_id, attempt, offset, END)
    placed = await pool.settle(agent, last, Outcome.DONE, USAGE, now_ms=now)
    assert (placed.disposition, placed.length) == (Disposition.OK, offset + len(END)), placed


async def finish(pool: PoolScripts, agent: str, request_id: str, attempt: int, *, now: float = NOW) -> None:
    """Open and settle."""
    await settle(pool, agent, request_id, attempt, await begin(pool, agent, request_id, attempt, now=now), now=now)


async def serve_all(pool: PoolScripts, agent: str, *, now: float = NOW) -> list[str]:
    """Take and finish until the lane stays empty; the ids in the order of delivery."""
    served: list[str] = []
    while tickets := await take(pool, agent):
        for request_id, attempt in tickets:
            served.append(request_id)
            await finish(pool, agent, request_id, attempt, now=now)
    return served


async def lose(pool: PoolScripts, agent: str, *, now: float) -> Reaped:
    """Reap an agent whose lease is over."""
    return await pool.reap(agent, max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME, now_ms=now)


async def leave(pool: PoolScripts, *agents: str) -> None:
    for agent in agents:
        await pool.reap(
            agent, max_deaths=3, dead_frame=DEAD_FRAME, cancel_frame=CANCELLED_FRAME, is_leaving=True, now_ms=NOW
        )
