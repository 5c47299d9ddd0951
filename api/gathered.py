"""One HTTP request that several requests of the queue answer together: a batch of embeddings, or several choices.

1. Submit them in order, each once an agent has the one before it: of a batch at most one waits, however many slots are
   busy. What finds a free slot waits for nobody. The first is refused as any request; a later one that the buffer has
   no room for is submitted again soon, and whenever one has ended.
2. Follow all at once. The first error is the answer, whatever the others do.
3. Answer when all have finished.

Leaving before that, for whatever reason, cancels those that have not ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import assert_never

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from api.event_stream import header_value
from api.exchange import Submit, check_reason, remember
from api.pieces import write_json
from paddler.clock import Clock
from paddler.errors import BufferFull, RequestLost, TenantBufferFull
from paddler.jobs.gateway import Reply
from paddler.wire.balancer import Finished, Opened, Tokens, Vectors

RETRY_S = 0.25
"""After about so long a part is submitted again that found the buffer full."""


class Part:
    """One of the requests, followed by a task of its own, and what it has said. `news` is set when there is any."""

    def __init__(self, reply: Reply, news: asyncio.Event) -> None:
        self.reply = reply
        self.vectors: list[bytes] = []
        self.tokens: list[Tokens] = []
        self.end: Finished | None = None
        self.is_begun = reply.position is None
        """It does not wait: an agent was free for it at once, or has opened it."""
        self._news = news
        self._task = asyncio.create_task(self._listen())
        self._task.add_done_callback(lambda _: news.set())

    @property
    def is_over(self) -> bool:
        return self._task.done()

    def check(self) -> None:
        """Raises what it has ended with, unless it has finished."""
        if self.is_over:
            self._task.result()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        async for frame in self.reply:
            match frame:
                case Vectors(vectors):
                    self.vectors += vectors
                case Opened():
                    self.is_begun = True
                    self._news.set()
                case Tokens():
                    self.tokens.append(frame)
                case Finished():
                    check_reason(frame)
                    self.end = frame
                case _:
                    assert_never(frame)
        if self.end is None:
            raise RequestLost("Redis lost this request's answer; send it again.")


class GatheredAnswer:
    """Answers once, when all of the requests have finished."""

    def __init__(
        self, submits: Sequence[Submit], render: Callable[[Sequence[Part]], Iterable[bytes]], clock: Clock
    ) -> None:
        """`render` makes the chunks of a JSON body of all parts in order; what it raises comes before the first."""
        self._submits = submits
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock)

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        async with AsyncExitStack() as stack:
            parts = await self._gather(scope, stack)
            chunks = self._render(parts)
            headers: Headers = [(b"x-request-id", parts[0].reply.request_id.encode())]
            await write_json(out, headers + _route_headers([part.reply for part in parts]), chunks, self._clock)

    async def _gather(self, scope: Scope, stack: AsyncExitStack) -> list[Part]:
        """All parts, finished. Each that was accepted is left, and stopped, with the stack."""
        parts: list[Part] = []
        news = asyncio.Event()
        while True:
            news.clear()
            _check(scope, parts)
            patience_s = None
            if len(parts) == len(self._submits):
                if all(part.is_over for part in parts):
                    return parts
            elif not parts or parts[-1].is_begun:
                try:
                    reply = await self._submits[len(parts)]()
                except (BufferFull, TenantBufferFull):
                    if not parts:
                        raise
                    # Others may fill the buffer, so that no end of a part of this batch would tell of room.
                    patience_s = RETRY_S * (0.5 + random.random())
                else:
                    if not parts:
                        remember(scope, reply.request_id)
                    parts.append(Part(await stack.enter_async_context(reply), news))
                    stack.push_async_callback(parts[-1].stop)
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await news.wait()


def _check(scope: Scope, parts: Sequence[Part]) -> None:
    for part in parts:
        try:
            part.check()
        except Exception:
            remember(scope, part.reply.request_id)
            raise


def _route_headers(replies: Sequence[Reply]) -> Headers:
    """All agents that have answered, and the most attempts any of the requests took."""
    agents = dict.fromkeys(header_value(name) for reply in replies if (name := reply.route.agent_name) is not None)
    attempts = [reply.route.attempt for reply in replies if reply.route.attempt is not None]
    headers: Headers = []
    if agents:
        headers.append((b"x-paddler-agent", ", ".join(agents).encode()))
    if attempts:
        headers.append((b"x-paddler-attempt", b"%d" % max(attempts)))
    return headers
