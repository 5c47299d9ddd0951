"""What tests of the panel do beside the browser, whose own event loop is in their thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

CHAT = "/v1/chat/completions"
ENDLESS = {"2": -100}
"""A bias against the starter model's end of a message: it goes on until `max_tokens`."""


def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class Client:
    """One streaming chat, read in a thread until it ends."""

    def __init__(self, url: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        self.text = ""
        self._url = url
        self._headers = headers
        self._body = body

    def listen(self) -> str:
        """All that came, to the end of the stream."""
        with (
            httpx.Client(timeout=120, trust_env=False, headers=self._headers) as http,
            http.stream("POST", f"{self._url}{CHAT}", json=self._body) as stream,
        ):
            for piece in stream.iter_text():
                self.text += piece
        return self.text


@contextmanager
def chatting(
    url: str, *, tokens: int, key: str | None = None, text: str = "Tell me a story."
) -> Generator[tuple[Client, Future[str]]]:
    """A client that wants so many tokens, and what it will have got; it is waited for."""
    body: dict[str, Any] = {
        "model": "default",
        "stream": True,
        "max_tokens": tokens,
        "logit_bias": ENDLESS,
        "messages": [{"role": "user", "content": text}],
    }
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with ThreadPoolExecutor(1) as thread:
        client = Client(url, headers, body)
        yield client, thread.submit(client.listen)
