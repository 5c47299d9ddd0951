"""A sink of StatsD that understands what it is sent, and takes nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_LINE = re.compile(r"(?P<name>[A-Za-z0-9_.-]+):(?P<value>-?\d+(?:\.\d+)?)\|(?P<kind>g|ms)")


class UdpSink(asyncio.DatagramProtocol):
    """`gauges` are the last values; `timers` all of them, by name. `reports` are the gauges packet by packet."""

    def __init__(self) -> None:
        self.port = 0
        self.gauges: dict[str, float] = {}
        self.timers: dict[str, list[float]] = {}
        self.reports: list[dict[str, float]] = []
        self.wrong: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: object) -> None:
        report: dict[str, float] = {}
        for line in data.decode().split("\n"):
            found = _LINE.fullmatch(line)
            if found is None:
                self.wrong.append(data)
            elif found["kind"] == "g":
                report[found["name"]] = float(found["value"])
            else:
                self.timers.setdefault(found["name"], []).append(float(found["value"]))
        if report:
            self.reports.append(report)
            self.gauges |= report


@asynccontextmanager
async def udp_sink() -> AsyncGenerator[UdpSink]:
    transport, sink = await asyncio.get_running_loop().create_datagram_endpoint(UdpSink, ("127.0.0.1", 0))
    try:
        yield sink
        assert sink.wrong == []
    finally:
        transport.close()
