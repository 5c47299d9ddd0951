"""Real processes for the tests of `paddler up`: small children, and looking at what is left of them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from paddler.clock import SystemClock
from paddler.testing.waiting import wait_until
from paddler.up.output import Output
from paddler.up.runner import Runner
from paddler.up.supervisor import Spec


def is_alive(pid: int) -> bool:
    """A zombie is dead: only its parent, which may be a careless init, has not noticed."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def python_spec(name: str, code: str, *, stop_stage: int = 0, awaits: str | None = None) -> Spec:
    """A child that runs a few lines of Python."""
    command = (sys.executable, "-I", "-S", "-u", "-c", code)
    return Spec(name=name, command=command, stop_stage=stop_stage, awaits=awaits)


def small_runner(
    *specs: Spec, probes: Mapping[str, Callable[[], Awaitable[None]]] | None = None
) -> tuple[Runner, io.StringIO]:
    """A runner over small children, and what it shows."""
    shown = io.StringIO()
    output = Output(shown, is_json=False, names=[spec.name for spec in specs])
    runner = Runner(list(specs), environment=os.environ, output=output, clock=SystemClock(), probes=probes or {})
    return runner, shown


SLEEPER = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


class Up:
    """A `paddler up` of a test's own: free ports, the scripted engine, its state below `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._out, self._err = folder / "out", folder / "err"
        free = [part for name in ADDRESSES for part in (f"--{name}", "127.0.0.1:0")]
        own = ["--state-dir", str(folder / "state"), "--engine", "scripted", "--log-format", "console"]
        command = [sys.executable, "-P", "-m", "paddler", "up", *free, *own, *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLER_")}
        # A second start in the same folder writes on.
        with self._out.open("a") as out, self._err.open("a") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment)

    @property
    def shown(self) -> str:
        """What it printed for the person in front of it."""
        return self._out.read_text()

    @property
    def log(self) -> str:
        return self._err.read_text()

    @property
    def curl(self) -> str:
        return next(line for line in self.shown.splitlines() if line.startswith("curl "))

    @property
    def redis_url(self) -> str:
        return self._row("Redis")

    @property
    def openai_url(self) -> str:
        return self._row("OpenAI").removesuffix("/v1")

    @property
    def inference_url(self) -> str:
        return self._row("inference")

    @property
    def management_url(self) -> str:
        return self._row("management")

    def _row(self, name: str) -> str:
        found = re.search(rf"^  {name} +(\S+)$", self.shown, re.MULTILINE)
        assert found
        return found[1]

    def pids(self) -> dict[str, int]:
        """The running children by name, as the system knows them."""
        found: dict[str, int] = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                command = child.cmdline()
            except psutil.NoSuchProcess:
                continue
            if "valkey-server" in " ".join(command):
                found["valkey"] = child.pid
            elif "paddler" in command and "launch.py" not in " ".join(command):
                name = command[command.index("paddler") + 1]
                found[command[command.index("--name") + 1] if "--name" in command else name] = child.pid
        return found

    async def ready(self) -> None:
        """Wait for the message. A child that crashes before it has no second chance here."""
        trouble = "starting it again"
        await wait_until(
            lambda: "Paddler is up" in self.shown or trouble in self.log or self.process.poll() is not None,
            timeout_s=90,
            what="up is ready",
        )
        assert self.process.poll() is None, self.log
        assert trouble not in self.log, self.log

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


ADDRESSES = ("inference-addr", "management-addr", "compat-openai-addr", "web-admin-panel-addr")


@asynccontextmanager
async def paddler_up(folder: Path, *arguments: str) -> AsyncGenerator[Up]:
    """Start it and wait until it is ready. What is left of it afterwards is killed."""
    up = Up(folder, *arguments)
    try:
        await up.ready()
        yield up
    finally:
        up.end()
