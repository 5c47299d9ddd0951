"""A client that times the text of streamed chat completions, the same for every server, and does little else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

TEXT = b'"delta":{"content":"'
USAGE = b'"usage":{'
PATIENCE_S = 300.0


class Streamed(Struct, frozen=True):
    """Seconds since the request was written: of each piece of text, and of the end."""

    text_s: list[float]
    end_s: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def first_s(self) -> float:
        return self.text_s[0]

    @property
    def gaps_s(self) -> list[float]:
        """Between pieces of text."""
        return [late - early for early, late in zip(self.text_s, self.text_s[1:], strict=False)]


def chat_body(prompt: str, *, max_tokens: int, **fields: Any) -> bytes:
    """Greedy and without penalties unless `fields` say otherwise, and never shorter than `max_tokens`."""
    same = {"temperature": 0, "repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 1}
    asked = {"model": "default", "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    messages = [{"role": "user", "content": prompt}]
    return msgspec.json.encode({**asked, **same, "messages": messages, "max_tokens": max_tokens, **fields})


async def stream(port: int, body: bytes, heard: Callable[[int], None] = lambda _: None) -> Streamed:
    """Send one request over a connection of its own. `heard` is told how many pieces of text there are, whenever there
    are more. Raises `RuntimeError` for an answer that is no whole stream."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        begin = time.perf_counter()
        writer.write(head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        text_s: list[float] = []
        received: list[bytes] = []
        tail = b""
        while data := await reader.read(1 << 16):
            now = time.perf_counter() - begin
            received.append(data)
            seen = tail + data
            if num_new := seen.count(TEXT):
                text_s += [now] * num_new
                heard(len(text_s))
            tail = seen[1 - len(TEXT) :]
        end_s = time.perf_counter() - begin
        writer.close()
    answer = b"".join(received)
    if b" 200 " not in answer[:20] or b"data: [DONE]" not in answer or not text_s:
        raise RuntimeError(f"no whole stream: {answer[:200]!r} ... {answer[-200:]!r}")
    usage = _usage(answer)
    details = usage.get("prompt_tokens_details") or {}
    return Streamed(
        text_s, end_s, usage["prompt_tokens"], usage["completion_tokens"], int(details.get("cached_tokens", 0))
    )


def stream_all(port: int, bodies: Sequence[bytes]) -> tuple[list[Streamed], float]:
    """All at once; and the seconds until the last has ended."""

    async def run() -> list[Streamed]:
        return await asyncio.gather(*(stream(port, body) for body in bodies))

    begin = time.perf_counter()
    streams = asyncio.run(run())
    return streams, time.perf_counter() - begin


def _usage(answer: bytes) -> dict[str, Any]:
    for line in reversed(answer.split(b"\n")):
        if line.startswith(b"data: {") and USAGE in line:
            return msgspec.json.decode(line[6:])["usage"]
    raise RuntimeError("the stream has no usage")
