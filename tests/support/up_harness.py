"""Real processes for the tests of `paddler up`: small children, and looking at what is left of them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Awaitable, Callable, Mapping

import psutil

from paddler.clock import SystemClock
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
