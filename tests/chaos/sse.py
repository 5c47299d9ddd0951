"""As much of HTTP/1.1 and server-sent events as the chaos clients need, so that thousands of streams cost little."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from msgspec import Struct

BROKEN = (OSError, EOFError, asyncio.LimitOverrunError, ValueError)
"""What a connection that ends too early raises."""


class Address(Struct, frozen=True):
    host: str
    port: int


class Response:
    """Status and headers; `events` gives the body as server-sent events, `body` as a whole."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def events(self) -> AsyncGenerator[tuple[str, bytes]]:
        """`id` ('' for none) and data of every event. Raises one of `BROKEN` when the body ends too early."""
        buffered = b""
        async for chunk in self._chunks():
            buffered += chunk
            *whole, buffered = buffered.split(b"\n\n")
            for event in whole:
                event_id, data = "", b""
                for line in event.split(b"\n"):
                    name, _, value = line.partition(b": ")
                    if name == b"id":
                        event_id = value.decode()
                    elif name == b"data":
                        data = value
                if data:
                    yield event_id, data

    async def body(self) -> bytes:
        if "content-length" in self.headers:
            return await self._reader.readexactly(int(self.headers["content-length"]))
        return b"".join([chunk async for chunk in self._chunks()])

    async def _chunks(self) -> AsyncGenerator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n"))[:-2], 16):
            chunk = await self._reader.readexactly(size + 2)
            yield chunk[:-2]


@contextlib.asynccontextmanager
async def request(
    address: Address, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> AsyncGenerator[Response]:
    """One request on a connection of its own, which is closed at the end. Raises one of `BROKEN`."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"host: {address.host}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in head[1:] if line)
        yield Response(int(head[0].split()[1]), {name.lower(): value for name, _, value in pairs}, reader)
    finally:
        writer.close()
