"""`paddler balancer` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from paddler.store.client import Store

ANY_PORT = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")


class BalancerProcess:
    """A started balancer; `addresses` maps its services to where they listen."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.addresses: dict[str, str] = {}

    async def wait_listening(self, num_services: int) -> None:
        while len(self.addresses) < num_services:
            assert self.process.stderr is not None
            line = await asyncio.wait_for(self.process.stderr.readline(), 60)
            assert line, "the balancer ended"
            record = json.loads(line)
            if record["event"] == "listening":
                self.addresses[record["service"]] = f"http://{record['address']}"

    def http(self, service: str = "inference") -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.addresses[service], timeout=20, trust_env=False)


StartBalancer = Callable[..., Awaitable[BalancerProcess]]


@asynccontextmanager
async def read_log(balancer: BalancerProcess) -> AsyncGenerator[None]:
    """Read on what it logs, a line for every request: a pipe that is full holds it up."""
    assert balancer.process.stderr is not None
    stderr = balancer.process.stderr

    async def read() -> None:
        while await stderr.read(65536):
            pass

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@asynccontextmanager
async def balancer_processes() -> AsyncGenerator[StartBalancer]:
    """Starts balancers with given flags; all are stopped at the end."""
    started: list[asyncio.subprocess.Process] = []

    async def start(store: Store, *flags: str, num_services: int = 2) -> BalancerProcess:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "paddler", "balancer", *ANY_PORT),
            *("--redis-url", store.url, "--redis-prefix", store.prefix, "--log-format", "json", *flags),
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        balancer = BalancerProcess(process)
        await balancer.wait_listening(num_services)
        return balancer

    try:
        yield start
    finally:
        for process in started:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.communicate(), 10)
