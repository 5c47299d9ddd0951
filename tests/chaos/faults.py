"""Injecting faults: at every tick, each kind with its own probability."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter, deque
from pathlib import Path

import redis

from tests.chaos.fleet import ChaosFleet, Member

TICK_S = 0.25
FORGOTTEN_S = 1.0

CHANCES = {
    "agent killed": 0.08,
    "agent paused past its lease": 0.01,
    "agent told to leave": 0.01,
    "valkey restarted": 0.02,
    "balancer killed": 0.005,
    "connections dropped": 0.02,
}
"""Per tick. Poison requests come from the producers."""

POISONS_S = 0.05 / TICK_S
FIRST_EVERY_TICKS = 4


class Chaos:
    """`tick` four times a second. In the beginning each kind comes once, so that a short run has them all."""

    def __init__(self, fleet: ChaosFleet, chance: random.Random, *, mode: str, lease_ms: int) -> None:
        self.counts: Counter[str] = Counter()
        self._fleet = fleet
        self._chance = chance
        self._mode = mode
        self._lease_s = lease_ms / 1000
        self._first = deque(chance.sample(list(CHANCES), len(CHANCES)))
        self._num_ticks = 0
        self._paused: list[tuple[float, Member]] = []
        self._sizes: deque[tuple[float, int]] = deque(maxlen=64)

    @property
    def has_done_all(self) -> bool:
        return not self._first

    def tick(self) -> None:
        now = time.monotonic()
        self._wake(now)
        self._sizes.append((now, self._aof_size()))
        self._num_ticks += 1
        if self._first and self._num_ticks % FIRST_EVERY_TICKS == 0:
            self._do(self._first.popleft())
        for kind, chance in CHANCES.items():
            if self._chance.random() < chance:
                self._do(kind)
        self.counts["agents died"] += self._fleet.replace_dead()

    def rest(self) -> None:
        """No fault from now on; who was paused goes on, who died is replaced."""
        self._wake(float("inf"))
        self.counts["agents died"] += self._fleet.replace_dead()

    def _wake(self, now: float) -> None:
        for wake_at, agent in list(self._paused):
            if wake_at <= now:
                agent.send(signal.SIGCONT)
                self._paused.remove((wake_at, agent))

    def _do(self, kind: str) -> None:
        paused = {agent.process.pid for _, agent in self._paused}
        agents = [agent for agent in self._fleet.agents if agent.process.pid not in paused]
        match kind:
            case "agent killed":
                self._chance.choice(self._fleet.agents).send(signal.SIGKILL)
            case "agent paused past its lease" if len(agents) > 1:
                agent = self._chance.choice(agents)
                agent.send(signal.SIGSTOP)
                self._paused.append((time.monotonic() + self._lease_s * self._chance.uniform(1.2, 3), agent))
            case "agent told to leave" if agents:
                agent = self._chance.choice(agents)
                agent.send(signal.SIGTERM)
                self._fleet.agents.remove(agent)
                self._fleet.leaving.append(agent)
            case "valkey restarted":
                self._restart()
            case "balancer killed":
                self._chance.choice(self._fleet.balancers).send(signal.SIGKILL)
            case "connections dropped":
                self._drop_connections()
            case _:
                return
        self.counts[kind] += 1

    def _restart(self) -> None:
        server = self._fleet.server
        if self._mode == "graceful":
            server.stop()
        else:
            server.kill()
        if self._mode == "everysec":
            self._forget()
        server.start()
        self._sizes.clear()

    def _forget(self) -> None:
        """What a crash of the machine does under `appendfsync everysec`: up to the last second of the log is gone.

        A killed process alone loses next to nothing, because the kernel still has what was written."""
        now = time.monotonic()
        older = [size for at, size in self._sizes if at >= now - FORGOTTEN_S - TICK_S]
        end = self._aof_size()
        file = self._aof()
        if file is not None and older and min(older) < end:
            keep = self._chance.randint(min(older), end)
            with file.open("r+b") as log:
                log.truncate(keep)
            self.counts["bytes forgotten"] += end - keep

    def _aof(self) -> Path | None:
        files = self._fleet.server.directory.glob("appendonlydir/*.incr.aof")
        return max(files, key=lambda file: file.stat().st_mtime, default=None)

    def _aof_size(self) -> int:
        file = self._aof()
        return file.stat().st_size if file is not None else 0

    def _drop_connections(self) -> None:
        with contextlib.suppress(redis.RedisError):  # it may be its own connection
            if self._chance.random() < 0.5:
                self._fleet.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            else:
                clients = self._fleet.redis.client_list()
                for client in self._chance.sample(clients, (len(clients) + 1) // 2):
                    self._fleet.redis.execute_command("CLIENT", "KILL", "ID", client["id"])
