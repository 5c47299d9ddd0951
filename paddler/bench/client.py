"""One target over HTTP. By aiohttp, as a generator must be quicker than what it measures: a stream of 64 chunks takes
it 1.6 ms of CPU, and httpx 6.9 ms."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from paddler.bench.events import DONE, Delta, EventLines, Usage, error_words, read_chunk
from paddler.bench.samples import Failure, Kind, Outcome, Sample
from paddler.clock import Clock

KEEPALIVE_S = 2.0
"""Less than servers keep an idle connection (uvicorn and llama-server 5 s): one closed under a request would look like
a failure of the server's."""

CHAT = "/v1/chat/completions"


class Target(Struct, frozen=True):
    """`url` without `/v1` and a slash at its end. `model` None: the first that it lists."""

    label: str
    url: str
    model: str | None = None
    headers: Mapping[str, str] = {}
    tls: ssl.SSLContext | None = None


class Asking(Struct, frozen=True, kw_only=True):
    """How each request is made. `timeout_s` is for a whole answer; a client that is to go away does so after `leave_s`.
    `extra` is merged into each body; None takes a field away."""

    is_streamed: bool = True
    timeout_s: float = 600.0
    leave_s: float = 1.0
    extra: Mapping[str, Any] = {}


class Client:
    """`ask` fills a sample; times are those of `clock`, less `start_s`."""

    def __init__(self, target: Target, asking: Asking, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.target = target
        self.asking = asking
        self._http = session
        self._clock = clock
        self.start_s = 0.0

    def now_s(self) -> float:
        return self._clock.monotonic() - self.start_s

    def body(self, model: str, messages: list[dict[str, str]], output_tokens: int, *, is_streamed: bool) -> bytes:
        asked: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": output_tokens}
        if is_streamed:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        asked |= self.asking.extra
        return msgspec.json.encode({name: value for name, value in asked.items() if value is not None})

    async def ask(self, body: bytes, sample: Sample) -> str:
        """The text of the answer. Every outcome but cancellation of the task is told by the sample. Where it
        `is_left` the client goes away after `leave_s`."""
        text: list[str] = []
        try:
            async with asyncio.timeout(self.asking.leave_s if sample.is_left else None) as leaving:
                try:
                    async with asyncio.timeout(self.asking.timeout_s):
                        await self._ask(body, sample, text)
                    sample.outcome = Outcome.OK
                except TimeoutError:
                    if leaving.expired():
                        raise
                    raise Failure(Kind.TIMEOUT, f"not within {self.asking.timeout_s:g} s") from None
        except TimeoutError:
            sample.outcome = Outcome.CANCELLED
        except Failure as failure:
            sample.fail(failure)
        if sample.end_s is None:
            sample.end_s = self.now_s()
        if not sample.has_usage:
            sample.output_tokens = sample.num_chunks
        return "".join(text)

    async def _ask(self, body: bytes, sample: Sample, text: list[str]) -> None:
        async with self.call("POST", CHAT, body) as answer:
            if self.asking.is_streamed:
                await self._read_stream(answer, sample, text)
            else:
                data = await answer.read()
                sample.end_s = self.now_s()
                _read_whole(data, sample, text)

    @contextlib.asynccontextmanager
    async def call(self, method: str, path: str, body: bytes | None = None) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Raises `Failure` for anything but 200, and for a connection that cannot be had or breaks."""
        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            async with self._http.request(
                method, self.target.url + path, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    words = error_words(await answer.content.read(64 * 1024))
                    raise Failure(f"status {answer.status}", words or (answer.reason or ""))
                yield answer
        except aiohttp.ClientPayloadError as error:
            raise Failure(Kind.CONNECTION, f"the answer broke off: {error}") from None
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise Failure(Kind.CONNECTION, str(error) or type(error).__name__) from None
        except aiohttp.ClientError as error:
            raise Failure(Kind.BROKEN, f"{type(error).__name__}: {error}") from None

    async def _read_stream(self, answer: aiohttp.ClientResponse, sample: Sample, text: list[str]) -> None:
        if answer.content_type != "text/event-stream":
            raise Failure(Kind.BROKEN, f"a stream was asked for, and {answer.content_type} came")
        lines, is_whole = EventLines(), False
        async for data in answer.content.iter_any():
            now_s = self.now_s()
            for event in lines.feed(data):
                if event == DONE:
                    is_whole = True
                    sample.end_s = now_s
                    continue
                chunk = read_chunk(event)
                has_text = False
                for choice in chunk.choices:
                    is_whole = is_whole or choice.finish_reason is not None
                    if choice.delta is not None and choice.delta.says_something:
                        has_text = True
                        text.append(choice.delta.content or "")
                if has_text:
                    sample.chunk_arrived(now_s)
                if chunk.usage is not None:
                    _take_usage(chunk.usage, sample)
        if not is_whole:
            raise Failure(Kind.BROKEN, "the stream ended without [DONE] and without a finish_reason")


def _read_whole(data: bytes, sample: Sample, text: list[str]) -> None:
    chunk = read_chunk(data)
    if not chunk.choices:
        raise Failure(Kind.BROKEN, "the answer has no choices")
    message = chunk.choices[0].message or Delta()
    text.append(message.content or "")
    if chunk.usage is not None:
        _take_usage(chunk.usage, sample)


def _take_usage(usage: Usage, sample: Sample) -> None:
    if not usage.prompt_tokens and not usage.completion_tokens:
        return  # some servers send zeros with every chunk before the last
    sample.has_usage = True
    sample.prompt_tokens, sample.output_tokens = usage.prompt_tokens, usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        sample.cached_tokens = usage.prompt_tokens_details.cached_tokens


@contextlib.asynccontextmanager
async def open_client(target: Target, asking: Asking, clock: Clock) -> AsyncGenerator[Client]:
    """As many connections as requests at once. Proxies of the environment are not asked: they would be measured."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ssl=target.tls or True)
    async with aiohttp.ClientSession(
        connector=connector,
        headers={"user-agent": "paddler-bench", **target.headers},
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=1 << 20,
    ) as session:
        yield Client(target, asking, session, clock)
