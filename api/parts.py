"""The requests of the queue that answer one HTTP request together.

They are submitted in order, each once an agent has the one before it: of a batch at most one waits, however many slots
are busy. What finds a free slot waits for nobody. The first is refused as any request; a later one that the buffer has
no room for, or the key no place in flight, is submitted again soon, and whenever one has ended.

All are followed at once. The first error is raised, whatever the others do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import assert_never

from litestar.types import Scope

from api.exchange import Submit, check_reason, remember
from paddler.errors import BufferFull, RequestLost, TenantBufferFull, TooManyInFlight
from paddler.jobs.gateway import Reply
from paddler.wire.balancer import Answered, Finished, Opened, Tokens, Vectors

RETRY_S = 0.25
"""After about so long a part is submitted again that found the buffer full."""

Sink = Callable[["Part", Opened | Tokens | Finished], Awaitable[None]]
"""Takes what a part says as soon as it says it; the part waits until it has returned."""


class Part:
    """One of the requests, followed by a task of its own, and what it has said. `news` is set when there is any.

    With a `sink` nothing of its text is kept here."""

    def __init__(self, index: int, reply: Reply, news: asyncio.Event, sink: Sink | None = None) -> None:
        self.index = index
        self.reply = reply
        self.vectors: list[bytes] = []
        self.tokens: list[Tokens] = []
        self.end: Finished | None = None
        self.is_begun = reply.position is None
        """It does not wait: an agent was free for it at once, or has opened it."""
        self._news = news
        self._sink = sink
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
                    continue
                case Opened():
                    self.is_begun = True
                    self._news.set()
                case Tokens():
                    if self._sink is None:
                        self.tokens.append(frame)
                case Answered():
                    continue
                case Finished():
                    check_reason(frame)
                    self.end = frame
                case _:
                    assert_never(frame)
            if self._sink is not None:
                await self._sink(self, frame)
        if self.end is None:
            raise RequestLost("Redis lost this request's answer; send it again.")


async def follow_parts(
    submits: Sequence[Submit], scope: Scope, stack: AsyncExitStack, sink: Sink | None = None
) -> list[Part]:
    """All parts, finished. Each that was accepted is left, and stopped, with the stack."""
    parts: list[Part] = []
    news = asyncio.Event()
    while True:
        news.clear()
        _check(scope, parts)
        patience_s = None
        if len(parts) == len(submits):
            if all(part.is_over for part in parts):
                return parts
        elif not parts or parts[-1].is_begun:
            try:
                reply = await submits[len(parts)]()
            except (BufferFull, TenantBufferFull, TooManyInFlight):
                if not parts:
                    raise
                # Others may fill the buffer, so that no end of a part of this batch would tell of room.
                patience_s = RETRY_S * (0.5 + random.random())
            else:
                if not parts:
                    remember(scope, reply.request_id)
                parts.append(Part(len(parts), await stack.enter_async_context(reply), news, sink))
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
