"""Server-sent events as servers for models send them: lines `data: ...`, comments, and an end.

After WHATWG's HTML standard, 9.2, as far as it is used: each `data` line is an event of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from workers.agent.upstream.trouble import Broken

MAX_LINE = 8 * 1024 * 1024
DONE = b"[DONE]"


async def data_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes | None]:
    """The data of each event; None for what is only a sign of life. Ends at `[DONE]` or with the stream.

    Raises `Broken` for lines that no event has."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        begin = 0
        while (end := buffer.find(b"\n", begin)) >= 0:
            line = bytes(buffer[begin:end]).rstrip(b"\r")
            begin = end + 1
            data = _data_of(line)
            if data == DONE:
                return
            yield data
        del buffer[:begin]
        if len(buffer) > MAX_LINE:
            raise Broken(f"the server has sent more than {MAX_LINE} bytes without the end of a line")
    if (data := _data_of(bytes(buffer).strip())) and data != DONE:
        yield data


def _data_of(line: bytes) -> bytes | None:
    """None for an empty line, a comment and fields that say nothing to us."""
    name, colon, value = line.partition(b":")
    if not colon or not name:
        return None
    if name in (b"data", b"error"):  # some of llama.cpp's servers name the field of an error so
        return value.removeprefix(b" ")
    if name in (b"event", b"id", b"retry"):
        return None
    raise Broken("the server's stream is no stream of events")
