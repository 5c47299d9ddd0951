"""The load generator of the queue benchmark: a process of its own that does as little as possible for a request.

It reads a `Load` as JSON from standard input, sends streaming chat completions over HTTP/1.1 connections that it
keeps, and prints a `Measured` as JSON. `--floor` starts the other end of its own floor instead: a server that
answers every request at once, with the bytes a balancer would send for one token; it prints its port.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
import psutil
import uvloop
from msgspec import Struct

TEXT = b'"delta":{"content":'
DONE = b"data: [DONE]"
LAST_CHUNK = b"\r\n0\r\n\r\n"
CONNECTS_AT_ONCE = 100
FILLER = "The quick brown fox jumps over the lazy dog near the river bank. " * 6


class Load(Struct, kw_only=True):
    """What to send, and for how long. `rate` > 0 is an open loop: requests/s with exponential gaps, whether earlier
    ones are answered or not, after `warmup_s` that are not counted. Else `streams` are kept going: each sends its next
    request when the last has ended, until `seconds` are over or `requests` were sent (0: no limit), with no more than
    `max_silent` at once of whose answer not a byte has come: a stream's head says that it was accepted.

    `watched` are processes by name, whose CPU time is read at both ends of what is counted."""

    host: str
    port: int
    output_tokens: int
    rate: float = 0.0
    streams: int = 1
    requests: int = 0
    max_silent: int = sys.maxsize
    seconds: float = 0.0
    warmup_s: float = 0.0
    seed: int = 0
    patience_s: float = 30.0
    watched: dict[str, int] = {}


class Quantiles(Struct):
    p50: float
    p90: float
    p99: float
    max: float


class Measured(Struct, kw_only=True):
    """Times are µs from writing the request: to the first byte of text, and to the end. `lag_us` is how late the
    client itself was, which is no part of them. `num_refused` of the errors were told by their HTTP status.
    `num_frames` counts events that carry text. `cpu_s` has the watched processes, this one (`client`) and whatever
    else ran on the machine (`others`)."""

    num_requests: int
    num_errors: int
    num_refused: int
    errors: list[str]
    window_s: float
    first_us: Quantiles
    whole_us: Quantiles
    lag_us: Quantiles
    num_frames: int
    cpu_s: dict[str, float]


def quantiles(values: Sequence[float]) -> Quantiles:
    """Nearest-rank quantiles; zeros when there is nothing."""
    ordered = sorted(values) or [0.0]
    at = [ordered[math.ceil(part * len(ordered)) - 1] for part in (0.5, 0.9, 0.99)]
    return Quantiles(*(round(value, 1) for value in (*at, ordered[-1])))


class Call:
    """One request; times in ns, 0 until they are known."""

    def __init__(self, lag_ns: int, on_begin: Callable[[], None], on_end: Callable[[Connection], None]) -> None:
        self.lag_ns = lag_ns
        self.on_begin = on_begin
        self.on_end = on_end
        self.first_ns = 0
        self.end_ns = 0
        self.num_frames = 0
        self.status = b""
        self.has_done = False
        self.error = ""
        self.sent_ns = time.perf_counter_ns()


class Connection(asyncio.Protocol):
    """Bytes are searched, not parsed: a client that costs as much as the server would measure itself."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.call: Call | None = None
        self._tail = b""

    @property
    def is_open(self) -> bool:
        return self.transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def send(self, request: bytes, call: Call) -> None:
        self.call = call
        self._tail = b""
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.perf_counter_ns()
        call = self.call
        if call is None:
            self._close()
            return
        if not call.status:
            call.status = data[9:12]
            call.on_begin()
            if call.status != b"200":
                self._close()
                body = data.partition(b"\r\n\r\n")[2]
                self._end(f"HTTP status {(call.status + b' ' + body[:200]).decode(errors='replace')}")
                return
        seen = self._tail + data
        found = seen.count(TEXT)
        if found:
            call.num_frames += found
            call.first_ns = call.first_ns or now_ns
        if DONE in seen:
            call.has_done = True
        # One byte less than the marker: none is missed between two reads, none is counted twice.
        self._tail = seen[1 - len(TEXT) :]
        if seen.endswith(LAST_CHUNK):
            call.end_ns = now_ns
            self._end("" if call.has_done and call.first_ns else "the stream has no text or no [DONE]")

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.call is not None:
            self._end("the connection was closed")

    def _end(self, error: str) -> None:
        call, self.call = self.call, None
        assert call is not None
        if not call.status:
            call.on_begin()
        call.error = error
        call.on_end(self)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None


class Client:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._calls: list[Call] = []
        self._idle: list[Connection] = []
        self._num_open = 0
        self._num_sent = 0
        self._num_silent = 0
        self._changed = asyncio.Event()
        body = b'"}],"model":"default","stream":true,"temperature":0}'
        # What is unique comes first, so that no two prompts have a prefix in common.
        start = b'{"messages":[{"role":"user","content":"%010d '
        text = f"[[tokens={load.output_tokens}]] {FILLER}".encode()
        length = len(start % 0) + len(text) + len(body)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {load.host}\r\ncontent-type: application/json\r\n"
        self._before = head.encode() + b"content-length: %d\r\n\r\n" % length + start
        self._after = text + body

    async def run(self) -> Measured:
        load = self._load
        if load.rate:
            await self._connect(min(256, max(16, int(load.rate / 4))))
            await self._send_at_rate(load.warmup_s)
            await self._wait_until_over()
            self._calls.clear()
            usage, begin = self._usage(), time.perf_counter()
            await self._send_at_rate(load.seconds)
            window_s = time.perf_counter() - begin
            await self._wait_until_over()
        else:
            await self._connect(load.streams)
            usage, begin = self._usage(), time.perf_counter()
            await self._keep_going(begin + load.seconds if load.seconds else float("inf"))
            window_s = time.perf_counter() - begin
        cpu_s = {name: round(spent - usage[name], 3) for name, spent in self._usage().items()}
        return self._measured(window_s, cpu_s)

    async def _connect(self, number: int) -> None:
        while number > 0:
            some = [self._connection() for _ in range(min(number, CONNECTS_AT_ONCE))]
            self._idle += await asyncio.gather(*some)
            number -= len(some)

    async def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._load.host, self._load.port)
        return connection

    async def _send_at_rate(self, seconds: float) -> None:
        gaps = random.Random(self._load.seed)
        begin_ns, due_s = time.perf_counter_ns(), 0.0
        while (due_s := due_s + gaps.expovariate(self._load.rate)) < seconds:
            wait_s = due_s - (time.perf_counter_ns() - begin_ns) / 1e9
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            connection = self._take_idle() or await self._connection()
            self._send(connection, time.perf_counter_ns() - begin_ns - int(due_s * 1e9))

    async def _keep_going(self, end: float) -> None:
        limit = self._load.requests or sys.maxsize
        while True:
            while self._num_sent < limit and time.perf_counter() < end and self._num_silent < self._load.max_silent:
                connection = self._take_idle()
                if connection is None:
                    break
                self._send(connection, 0)
            if not self._num_open:
                return
            self._changed.clear()
            async with asyncio.timeout(self._load.patience_s):
                await self._changed.wait()

    def _take_idle(self) -> Connection | None:
        """None when all are in use; those that the server closed meanwhile are dropped."""
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return None

    def _send(self, connection: Connection, lag_ns: int) -> None:
        self._num_sent += 1
        self._num_open += 1
        self._num_silent += 1
        request = self._before % (self._load.seed * 1_000_000 + self._num_sent) + self._after
        call = Call(lag_ns, self._begun, self._ended)
        self._calls.append(call)
        connection.send(request, call)

    def _begun(self) -> None:
        self._num_silent -= 1
        self._changed.set()

    def _ended(self, connection: Connection) -> None:
        self._num_open -= 1
        if connection.is_open:
            self._idle.append(connection)
        self._changed.set()

    async def _wait_until_over(self) -> None:
        async with asyncio.timeout(self._load.patience_s):
            while self._num_open:
                self._changed.clear()
                await self._changed.wait()

    def _usage(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for name, pid in {**self._load.watched, "client": psutil.Process().pid}.items():
            times = psutil.Process(pid).cpu_times()
            used[name] = times.user + times.system
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        used["others"] = sum(machine) - idle - sum(used.values())
        return used

    def _measured(self, window_s: float, cpu_s: dict[str, float]) -> Measured:
        errors = [call.error for call in self._calls if call.error]
        good = [call for call in self._calls if not call.error]
        return Measured(
            num_requests=len(self._calls),
            num_errors=len(errors),
            num_refused=sum(call.status not in (b"", b"200") for call in self._calls),
            errors=sorted(set(errors))[:5],
            window_s=round(window_s, 3),
            first_us=quantiles([(call.first_ns - call.sent_ns) / 1e3 for call in good]),
            whole_us=quantiles([(call.end_ns - call.sent_ns) / 1e3 for call in good]),
            lag_us=quantiles([call.lag_ns / 1e3 for call in good]),
            num_frames=sum(call.num_frames for call in good),
            cpu_s=cpu_s,
        )


class FloorServer(asyncio.Protocol):
    """Answers as soon as a request is complete."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        chunk = b'data: {"id":"0","object":"chat.completion.chunk","choices":[{"index":0,%s:"x"}}]}\n\n' % TEXT[:-1]
        body = chunk + DONE + b"\n\n"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._answer = head + b"%x\r\n" % len(body) + body + LAST_CHUNK

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if blank and len(body) >= int(head.rpartition(b"content-length: ")[2]):
            self._received.clear()
            assert self._transport is not None
            self._transport.write(self._answer)


async def serve_floor() -> None:
    server = await asyncio.get_running_loop().create_server(FloorServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    if "--floor" in sys.argv:
        uvloop.run(serve_floor())
        return
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    gc.disable()  # its pauses would be measured as the server's
    measured = uvloop.run(_run(load))
    sys.stdout.buffer.write(msgspec.json.encode(measured))


async def _run(load: Load) -> Measured:
    return await Client(load).run()


if __name__ == "__main__":
    main()
