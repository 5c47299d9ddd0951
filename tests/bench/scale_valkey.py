"""What a Valkey has spent between two looks: CPU of its main thread, calls and bytes; and on which functions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

MAX_LOGGED = 50_000
SLOW_US = 6
"""More than nearly all commands take inside of functions: to log those as well would double the time of a call."""


class Spent(Struct, kw_only=True):
    """Over `seconds`: CPU seconds of the main thread, calls of functions, blocking reads, and bytes of the network."""

    seconds: float
    cpu_s: float
    functions: int
    reads: int
    bytes_in: int
    bytes_out: int

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.seconds


class Function(Struct, kw_only=True):
    """Calls a second of one function, or blocking read, and what each takes inside of Valkey."""

    name: str
    calls_s: float
    us: float


async def look(redis: Any) -> Spent:
    """Since its start; `seconds` is a clock."""
    info: Mapping[str, Any] = await redis.info("everything")

    def calls(name: str) -> int:
        return int(info.get(f"cmdstat_{name}", {"calls": 0})["calls"])

    return Spent(
        seconds=time.perf_counter(),
        cpu_s=float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"]),
        functions=calls("fcall"),
        reads=calls("xreadgroup"),
        bytes_in=int(info["total_net_input_bytes"]),
        bytes_out=int(info["total_net_output_bytes"]),
    )


def between(first: Spent, last: Spent) -> Spent:
    return Spent(**{name: getattr(last, name) - getattr(first, name) for name in Spent.__struct_fields__})


async def functions(redis: Any, seconds: float) -> list[Function]:
    """What is called for so long, by the slow log; what that costs is not in any other figure. A command inside of a
    function is in it, too, where it is slow: those are left out."""
    await redis.config_set("slowlog-max-len", MAX_LOGGED)
    await redis.slowlog_reset()
    began = time.perf_counter()
    await redis.config_set("slowlog-log-slower-than", SLOW_US)
    await asyncio.sleep(seconds)
    await redis.config_set("slowlog-log-slower-than", -1)
    took = time.perf_counter() - began
    entries: list[dict[str, Any]] = await redis.slowlog_get(MAX_LOGGED)
    await redis.slowlog_reset()
    times: dict[str, list[int]] = {}
    for entry in entries:
        if name := _name(bytes(entry["command"])):
            times.setdefault(name, []).append(int(entry["duration"]))
    found = [
        Function(name=name, calls_s=round(len(each) / took, 2), us=round(sum(each) / len(each), 1))
        for name, each in times.items()
    ]
    return sorted(found, key=lambda one: -one.calls_s * one.us)


def _name(command: bytes) -> str:
    """Of a function its own name; empty for what may be part of one."""
    first, _, rest = command.partition(b" ")
    match first.upper():
        case b"FCALL":
            return rest.partition(b" ")[0].decode().split("_", 2)[-1]
        case b"XREADGROUP":
            return "xreadgroup"
        case _:
            return ""
