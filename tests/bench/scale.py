"""`make bench-scale`: what agents, requests and tokens cost one Valkey, and how many of them a shard can hold.

The agents are real but for their engine (`scale_agents.py`), many in a process; requests go in and tokens come out by
the gateway of a balancer, here in this process. Load is a few streams an agent, the same for every size, so that all
costs should grow with the number of agents. On few cores Python is what saturates: what is projected rests on the CPU
seconds that Valkey itself has used for each agent, request and token.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import msgspec
import psutil
import uvloop

from paddler import logs
from paddler.clock import SystemClock
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.store.client import Store, connect
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Generate
from paddler.wire.balancer import Tokens
from tests.bench.queue_fleet import new_valkey
from tests.bench.scale_agents import Order
from tests.bench.scale_report import Measured, Report, Size, project, show
from tests.bench.scale_valkey import Function, between, functions, look

PREFIX = "bench"
START_S = 240.0
NO_LIMIT_MS = 3_600_000
SHORT, LONG = 8, 64
"""Tokens of an answer: two loads tell what is of a request and what is of a token."""
REST_S = 0.5
LOGGED_S = 1.0


class Load:
    """So many streams at once, each a new request when it has ended, for as long as the context lasts."""

    def __init__(self, gateway: Gateway, streams: int, tokens: int) -> None:
        self.num_tokens = self.num_requests = self.num_errors = 0
        self._gateway = gateway
        self._tokens = tokens
        self._tasks = [asyncio.create_task(self._keep_asking(number)) for number in range(streams)]

    async def _keep_asking(self, number: int) -> None:
        turn = 0
        while True:
            turn += 1
            payload = Generate(prompt=f"[[tokens={self._tokens}]] question {turn} of {number}", max_tokens=self._tokens)
            try:
                async with await self._gateway.submit("default", payload) as reply:
                    async for frame in reply:
                        if isinstance(frame, Tokens):
                            self.num_tokens += len(frame.ids)
                self.num_requests += 1
            except Exception:
                self.num_errors += 1
                await SystemClock().sleep(REST_S)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def measure(store: Store, options: argparse.Namespace, agents: int, children: list[psutil.Process]) -> Size:
    pool = store.pool("default")

    async def num_free() -> int:
        return int(sum([slots for _, slots in await pool.redis.zrange(pool.keys.free(), 0, -1, withscores=True)]))

    async def are_all_free() -> bool:
        return await num_free() == agents * options.slots

    await wait_until(are_all_free, timeout_s=START_S, poll_s=0.2, what=f"{agents} agents have free slots")
    gateway = Gateway(
        store, GatewaySettings(max_buffered_requests=1_000_000, inference_item_timeout_ms=NO_LIMIT_MS), SystemClock()
    )
    await gateway.start()
    patient = store.dedicated()
    try:
        windows, called = [await _window(store, options, None, children)], list[Function]()
        for tokens in (SHORT, LONG):
            load = Load(gateway, options.busy * agents, tokens)
            try:
                await asyncio.sleep(options.warmup)
                windows.append(await _window(store, options, load, children))
                if tokens == SHORT:
                    called = await functions(patient, LOGGED_S)
            finally:
                await load.stop()
            await wait_until(are_all_free, timeout_s=60, poll_s=0.2, what="all has ended")
        counters: dict[bytes, bytes] = await store.redis.hgetall(pool.keys.counters())
        memory = (await store.redis.info("memory"))["used_memory"]
        clients = (await store.redis.info("clients"))["connected_clients"]
        idle, short, long = windows
        return Size(
            agents=agents,
            slots=agents * options.slots,
            connections=clients,
            memory_mib=round(memory / 2**20, 1),
            idle=idle,
            short=short,
            long=long,
            functions=called,
            projection=project(agents, idle, short, long),
            num_lost=int(counters.get(b"reaped", b"0")),
        )
    finally:
        await gateway.close()


async def _window(
    store: Store, options: argparse.Namespace, load: Load | None, children: list[psutil.Process]
) -> Measured:
    """What was spent, and done, in so many seconds."""
    here = psutil.Process()
    counts = (load.num_tokens, load.num_requests, load.num_errors) if load else (0, 0, 0)
    first, cpu, agents_cpu = await look(store.redis), _cpu(here), sum(map(_cpu, children))
    await asyncio.sleep(options.seconds)
    after = (load.num_tokens, load.num_requests, load.num_errors) if load else (0, 0, 0)
    last = await look(store.redis)
    used = between(first, last)
    tokens, requests, errors = (late - early for late, early in zip(after, counts, strict=True))
    return Measured(
        valkey=used,
        tokens=tokens,
        requests=requests,
        errors=errors,
        agents_cpu_s=round(sum(map(_cpu, children)) - agents_cpu, 3),
        balancer_cpu_s=round(_cpu(here) - cpu, 3),
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def agent_processes(url: str, options: argparse.Namespace, agents: int) -> Generator[list[subprocess.Popen[bytes]]]:
    """The agents, shared out among so many processes."""
    started: list[subprocess.Popen[bytes]] = []
    num_processes = min(options.processes, agents)
    try:
        for number in range(num_processes):
            share = agents // num_processes + (number < agents % num_processes)
            order = Order(
                redis_url=url,
                prefix=PREFIX,
                first=number * agents,
                number=share,
                slots=options.slots,
                step_ms=options.step_ms,
                flush_ms=options.flush_ms,
            )
            process = subprocess.Popen([sys.executable, "-m", "tests.bench.scale_agents"], stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(order))
            process.stdin.close()
            started.append(process)
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def run(options: argparse.Namespace) -> Report:
    sizes: list[Size] = []
    for agents in options.agents:
        server = new_valkey()
        try:
            server.start()
            store = connect(server.url, PREFIX)
            with agent_processes(server.url, options, agents) as processes:
                sizes.append(await measure(store, options, agents, [psutil.Process(one.pid) for one in processes]))
            await store.close()
        finally:
            server.close()
        print(f"{agents} agents: done", file=sys.stderr, flush=True)
    return Report(
        slots=options.slots, busy=options.busy, step_ms=options.step_ms, flush_ms=options.flush_ms, sizes=sizes
    )


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--slots", type=int, default=8, help="of each agent")
    parser.add_argument("--busy", type=int, default=2, help="streams at once for each agent")
    parser.add_argument("--step-ms", type=float, default=500.0, help="between two tokens of a stream")
    parser.add_argument("--flush-ms", type=int, default=20, help="as --flush-interval of an agent")
    parser.add_argument("--processes", type=int, default=4, help="that the agents are shared out among")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=5.0)
    parser.add_argument("--json", help="a file for the report")
    return parser.parse_args(arguments)


def main() -> None:
    options = read_options()
    logs.configure("bench", "error", "json")
    report = uvloop.run(run(options))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    print(show(report))


if __name__ == "__main__":
    main()
