"""The scripts of the queue with many requests waiting: how long each call takes, and what a waiting request weighs.

Times are taken twice: in the caller (redis-py, the round trip included), and in the server, whose slow log has the
µs of every call. Each cycle submits two, claims one, opens it and settles it, which claims another: as many wait after
it as before. Twice: `cold`, when nobody's KV cache holds anything, and `held`, when every prompt begins with what
another, busy agent holds, and the agent that claims holds something else: then a claim looks at its whole window.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from msgspec import Struct

from paddler.ids import new_request_id
from paddler.jobs.chains import HASH_CHARACTERS, estimate_tokens, hash_text, pack_chain
from paddler.routing.prefix import prefix_chain
from paddler.store.client import connect
from paddler.store.results import Emission, Outcome, Submission, Submitted
from paddler.store.scripts import PoolScripts, library
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate, Message, encode_payload
from paddler.wire.balancer import Finished, FinishReason, Opened, Usage, encode_frame
from tests.bench.queue_client import FILLER, Quantiles, quantiles
from tests.bench.queue_fleet import new_valkey

AGENT, OTHER = "agent-bench", "agent-other"
LEASE_MS = 3_600_000
FILLERS = 32
BYTES_PER_TOKEN = 4.0
NUM_HELD = 100
MIN_WEIGHED = 150
TIMED = ("submit", "claim", "open", "settle")
SLOW_US = 15
"""Scripts take longer, the commands within them, which the slow log would list too, do not."""
SHARED = Message("system", FILLER)
LAST_FRAME = encode_frame(Finished(FinishReason.STOP))


class Timing(Struct):
    caller_us: Quantiles
    server_us: Quantiles


class Level(Struct, kw_only=True):
    """`cold` and `held` are timings by script. `bytes_per_request` is what Valkey holds for one waiting request without
    its payload; None when too few were added to tell."""

    waiting: int
    fill_s: float
    cold: dict[str, Timing]
    held: dict[str, Timing]
    bytes_per_request: float | None
    payload_bytes: int


class Scripts(Struct):
    ping_us: Quantiles
    levels: list[Level]


def prompt(number: int) -> Generate:
    """A request of about the size that the load generator sends, beginning as all others do."""
    return Generate(messages=(SHARED, Message("user", f"{number:010d} How are you?")))


async def submit(pool: PoolScripts, number: int) -> Submitted:
    """As a balancer does it."""
    payload = prompt(number)
    chain = prefix_chain(payload, pool="default", tenant="anonymous")
    return await pool.submit(
        Submission(
            request_id=new_request_id("default"),
            request_class="normal",
            tenant="anonymous",
            payload=encode_payload(payload),
            inbox="bench:inbox",
            start_timeout_ms=LEASE_MS,
            max_waiting=10_000_000,
            chain=pack_chain(chain, BYTES_PER_TOKEN),
            prompt_tokens=estimate_tokens(chain.num_bytes, BYTES_PER_TOKEN),
            output_tokens=256,
        )
    )


async def register(pool: PoolScripts, agent_id: str) -> None:
    """Without slots: it claims nothing yet. It prefills so fast that whatever has waited for 2 ms may be stolen."""
    await pool.register(
        agent_id,
        lease_ms=LEASE_MS,
        model="scripted",
        seen_s=1_700_000_000,
        snapshot={"name": "bench", "slots": 0, "state": "ready", "prefill": 1_000_000},
    )


def shared_hashes() -> list[str]:
    """The entries that all prompts have in common."""
    one, other = (prefix_chain(prompt(number), pool="default", tenant="anonymous").hashes for number in (1, 2))
    return [hash_text(mine) for mine, theirs in zip(one, other, strict=True) if mine == theirs]


class ScriptBench:
    def __init__(self, pool: PoolScripts) -> None:
        self._pool = pool
        self._redis = pool.redis
        self._keys = pool.keys
        self._num_submitted = 0
        self._num_waiting = 0
        self._seconds: dict[str, list[float]] = {name: [] for name in TIMED}

    async def level(self, waiting: int, cycles: int) -> Level:
        """Fill up to `waiting`, then measure."""
        before, added, begin = await self._memory(), waiting - self._num_waiting, time.perf_counter()
        await self._fill(added)
        fill_s = time.perf_counter() - begin
        await self._wait_for_rewrite()
        weight = (await self._memory() - before) / added
        size = len(encode_payload(prompt(0)))
        cold = await self._measure(cycles)
        await self._pool.hold(OTHER, ttl_ms=LEASE_MS, added=shared_hashes())
        held = await self._measure(cycles, holding=[f"{n:0{HASH_CHARACTERS}d}" for n in range(NUM_HELD)])
        await self._pool.hold(OTHER, ttl_ms=LEASE_MS, removed=shared_hashes())
        return Level(
            waiting=waiting,
            fill_s=round(fill_s, 2),
            cold=cold,
            held=held,
            bytes_per_request=round(weight - size, 1) if added >= MIN_WEIGHED else None,
            payload_bytes=size,
        )

    async def ping(self, number: int) -> Quantiles:
        taken: list[float] = []
        for _ in range(number):
            begin = time.perf_counter()
            await self._redis.ping()
            taken.append((time.perf_counter() - begin) * 1e6)
        return quantiles(taken)

    async def _fill(self, number: int) -> None:
        numbers = iter(range(self._num_submitted, self._num_submitted + number))

        async def some() -> None:
            for each in numbers:
                await submit(self._pool, each)

        await asyncio.gather(*(some() for _ in range(FILLERS)))
        self._num_submitted += number
        self._num_waiting += number

    async def prepare(self) -> None:
        """An agent that has no room, and every script loaded."""
        await register(self._pool, OTHER)
        await self._measure(2)

    async def _measure(self, cycles: int, holding: Sequence[str] = ()) -> dict[str, Timing]:
        for taken in self._seconds.values():
            taken.clear()
        await register(self._pool, AGENT)
        await self._pool.hold(AGENT, ttl_ms=LEASE_MS, added=holding)
        await self._redis.config_set("slowlog-max-len", 1_000_000)
        await self._redis.config_set("slowlog-log-slower-than", SLOW_US)
        await self._redis.slowlog_reset()
        for cycle in range(cycles):
            await self._cycle(cycle)
        server = await self._server_times()
        await self._redis.config_set("slowlog-log-slower-than", -1)
        await self._redis.slowlog_reset()
        timings = {
            name: Timing(quantiles([taken * 1e6 for taken in self._seconds[name]]), quantiles(server[name]))
            for name in TIMED
        }
        await self._end_claimed()
        assert await self._redis.xlen(self._keys.buffer()) == self._num_waiting
        return timings

    async def _end_claimed(self) -> None:
        """The agent has a ticket of each cycle; it ends them, takes no others, and leaves."""
        await self._set_slots(0)
        entries: list[Any] = await self._redis.xrange(self._keys.lane(AGENT))
        for _, fields in entries:
            await self._settle(*await self._open(fields))
        await self._pool.reap(AGENT, max_deaths=3, dead_frame=b"", cancel_frame=b"", is_leaving=True)

    async def _set_slots(self, number: int) -> None:
        """Behind the scripts' back, as each that frees a slot would claim by itself."""
        await self._redis.hset(self._keys.agent(AGENT), "slots", number)

    async def _open(self, fields: dict[bytes, bytes]) -> tuple[str, int, int]:
        """A ticket's request, attempt and journal length."""
        request_id, attempt = fields[b"id"].decode(), int(fields[b"attempt"])
        frame = encode_frame(Opened("bench", attempt))
        opened = await self._timed("open", self._pool.open(AGENT, request_id, attempt, frame))
        return request_id, attempt, len(opened.journal)

    async def _settle(self, request_id: str, attempt: int, length: int) -> None:
        last = Emission(request_id, attempt, length, LAST_FRAME)
        await self._timed("settle", self._pool.settle(AGENT, last, Outcome.DONE, Usage(100, 1, 0)))

    async def _cycle(self, cycle: int) -> None:
        for _ in range(2):
            await self._timed("submit", submit(self._pool, self._num_submitted))
            self._num_submitted += 1
        await self._set_slots(cycle + 1)
        await self._timed("claim", self._pool.claim(AGENT))
        newest: list[Any] = await self._redis.xrevrange(self._keys.lane(AGENT), count=1)
        await self._settle(*await self._open(newest[0][1]))
        assert await self._redis.xlen(self._keys.lane(AGENT)) == cycle + 1

    async def _timed(self, name: str, call: Awaitable[Any]) -> Any:
        begin = time.perf_counter()
        answer = await call
        self._seconds[name].append(time.perf_counter() - begin)
        return answer

    async def _server_times(self) -> dict[str, list[float]]:
        names = {f"{library()[0]}_{name}": name for name in TIMED}
        found: dict[str, list[float]] = {name: [] for name in TIMED}
        for entry in await self._redis.slowlog_get(1_000_000):
            words = entry["command"].split(b" ", 2)
            if words[0].lower() == b"fcall" and (name := names.get(words[1].decode())):
                found[name].append(float(entry["duration"]))
        return found

    async def _memory(self) -> int:
        """Bytes of data: what Valkey uses without the buffers of connections and of its log."""
        info = await self._redis.info("memory")
        return info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"]

    async def _wait_for_rewrite(self) -> None:
        """A fork that writes the log anew would share the cores with what is measured."""

        async def is_over() -> bool:
            return not (await self._redis.info("persistence"))["aof_rewrite_in_progress"]

        await wait_until(is_over, timeout_s=60, poll_s=0.1, what="the log is rewritten")


async def measure_scripts(levels: Sequence[int], cycles: int) -> Scripts:
    server = new_valkey()
    server.start()
    store = connect(server.url, "bench")
    try:
        bench = ScriptBench(store.pool("default"))
        ping_us = await bench.ping(cycles)
        await bench.prepare()
        return Scripts(ping_us, [await bench.level(waiting, cycles) for waiting in levels])
    finally:
        await store.close()
        server.close()
