"""What the benchmark of the tiers runs: a Valkey for the queue, another one for states, a balancer, and agents as they
are asked for, each a real process. An agent is drained to make another one take the next request."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import redis
from msgspec import Struct

from tests.bench.http_client import Streamed, chat_body, stream
from tests.bench.llama_server import free_port
from tests.bench.queue_fleet import PREFIX, Child, new_valkey, until

BLOCK = 256
STORE_SIZE = "1gb"


class Sizes(Struct, frozen=True, kw_only=True):
    """Of every agent."""

    model: Path
    threads: int
    context_size: int = 8192


class Asked(Struct, frozen=True):
    """One answer, and when it was asked for (`time.perf_counter`)."""

    at_s: float
    answer: Streamed

    @property
    def first_s(self) -> float:
        return self.answer.first_s


class KvFleet:
    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes = sizes
        self.folder = folder
        self._queue, self._states = new_valkey(), new_valkey()
        self._state_port = free_port()
        self._stored: Any = redis.Redis.from_url(self.kv_url)
        self._others: list[Child] = []
        self._agents: list[Child] = []
        self._num_logs = 0
        self.port = 0
        self._management = ""

    @property
    def kv_url(self) -> str:
        return f"redis://127.0.0.1:{self._state_port}/0"

    def start(self) -> None:
        self._queue.start()
        self._start_states()
        balancer = self._start(
            "balancer",
            *("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"),
            *("--buffered-request-timeout", "600000", "--inference-item-timeout", "600000"),
        )
        self._others.append(balancer)
        inference = balancer.wait_for("listening", service="inference")["address"]
        self.port = int(inference.rpartition(":")[2])
        self._management = f"http://{balancer.wait_for('listening', service='management')['address']}"

    def _start_states(self) -> None:
        store = {"port": str(self._state_port), "appendonly": "no", "maxmemory": STORE_SIZE}
        self._states.arguments = {**store, "maxmemory-policy": "allkeys-lru"}
        self._states.start()

    def agent(self, name: str, *flags: str, context_size: int | None = None) -> Child:
        """Started, not waited for."""
        sizes = self.sizes
        size = ["--context-size", str(context_size or sizes.context_size), "--slots", "1"]
        engine = ["--model", str(sizes.model), "--threads", str(sizes.threads)]
        # Who is told to go must go, and what an agent keeps is read in its hash.
        now = ["--grace", "0", "--lease", "2000", "--monitoring-interval", "100"]
        agent = self._start("agent", "--name", name, *engine, *size, *now, *flags)
        self._agents.append(agent)
        return agent

    def ready(self, name: str) -> dict[str, Any]:
        """Wait until there is an agent of this name that takes requests; its object of the management service."""

        def find() -> dict[str, Any] | None:
            return next((one for one in self.agents() if one["name"] == name and one["state"] == "ready"), None)

        return until(find, f"{name} is ready")

    def agents(self) -> list[dict[str, Any]]:
        return self.call("GET", "/api/v1/agents")["agents"]

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx.request(method, f"{self._management}{path}", trust_env=False, **more)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def only(self, name: str) -> None:
        """All other agents are drained, this one is not: it takes what comes."""
        for one in self.agents():
            order = "undrain" if one["name"] == name else "drain"
            if one["is_draining"] == (order == "undrain"):
                self.call("POST", f"/api/v1/agent/{one['id']}/{order}")
        self.ready(name)

    def stop(self, *agents: Child) -> None:
        """As an orchestrator does it; and wait until they are gone from the pool."""
        for agent in agents:
            agent.stop()
            self._agents.remove(agent)
        until(lambda: len(self.agents()) == len(self._agents), "they are gone")

    def ask(
        self, messages: list[dict[str, str]], num_tokens: int, heard: Callable[[int], None] = lambda _: None
    ) -> Asked:
        body = chat_body("", max_tokens=num_tokens, messages=messages)
        begin = time.perf_counter()
        return Asked(begin, asyncio.run(stream(self.port, body, heard)))

    def num_tokens(self, text: str) -> int:
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/tokenize", json={"content": text}, trust_env=False, timeout=60
        )
        return len(answer.json()["tokens"])

    def until_kept(self, name: str, tier: str, num_blocks: int) -> None:
        """Wait until so many more blocks of an agent are in a tier of it, or in the shared store altogether."""

        def is_kept() -> bool:
            if tier == "shared":
                return self._stored.dbsize() >= num_blocks
            told = next(one for one in self.agents() if one["name"] == name)
            return any(one["tier"] == tier and one["blocks"] >= num_blocks for one in told["tiers"])

        until(is_kept, f"{num_blocks} blocks are in {tier}")

    def forget_states(self) -> None:
        self._stored.flushall()

    def _start(self, *arguments: str) -> Child:
        self._num_logs += 1
        log = self.folder / f"{self._num_logs}.log"
        return Child(log, *arguments, "--redis-url", self._queue.url, "--redis-prefix", PREFIX)

    def close(self) -> None:
        for child in (*self._agents, *self._others):
            child.stop()
        self._queue.close()
        self._states.close()


@contextlib.contextmanager
def kv_fleet(sizes: Sizes) -> Generator[KvFleet]:
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as folder:
        fleet = KvFleet(sizes, Path(folder))
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()
