"""Processes of agents that another autoscaler has started: are they there, and when do they end?

A process id may be another's by now, so it counts only with a command line that names the agent, and signals go through
a descriptor of the process (`pidfd_open(2)`, Linux 5.3), which can never mean another one. Elsewhere than on Linux no
agent is found again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path

CAN_FIND = sys.platform == "linux"


def open_process(pid: int) -> int | None:
    """A descriptor of the process, None where there is none or the system has no such thing."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def open_agent(name: str, pid: int) -> int | None:
    """A descriptor of the process if it is an agent of this name, else None."""
    descriptor = open_process(pid)
    # Opened before it is looked at: what is read is about the same process, or it has ended.
    if descriptor is None or _is_agent(name, pid):
        return descriptor
    os.close(descriptor)
    return None


def _is_agent(name: str, pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"agent" in words and (b"--name", name.encode()) in pairwise(words)


async def wait_for_end(descriptor: int) -> None:
    """Return when the process has ended. The descriptor stays open."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def note() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, note)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)


def send(descriptor: int, number: signal.Signals) -> None:
    """Nothing happens where the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)
