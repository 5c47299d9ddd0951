"""One HTTP request that several requests of the queue answer together: a batch of embeddings, or several choices.

1. Submit them in order. A later one that the buffer has no room for waits here until an earlier one has ended, so that
   no batch overflows the buffer by itself; the first is refused as any request.
2. Follow all at once. The first error is the answer, whatever the others do.
3. Answer when all have finished.

Leaving before that, for whatever reason, cancels those that have not ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import assert_never

from litestar.types import Receive, Scope, Send
from msgspec import Struct, field

from api.connection import Headers, Outgoing, run_while_connected
from api.exchange import Submit, check_reason, header_value, remember, whole_headers
from paddler.clock import Clock
from paddler.errors import BufferFull, RequestLost, TenantBufferFull
from paddler.jobs.gateway import Reply
from paddler.wire.balancer import Finished, Opened, Tokens, Vectors


class Part(Struct):
    """One of the requests: what it has said. `end` is None until it has finished."""

    reply: Reply
    vectors: list[bytes] = field(default_factory=list[bytes])
    tokens: list[Tokens] = field(default_factory=list[Tokens])
    end: Finished | None = None

    async def listen(self) -> None:
        async for frame in self.reply:
            match frame:
                case Vectors(vectors):
                    self.vectors += vectors
                case Tokens():
                    self.tokens.append(frame)
                case Opened():
                    pass
                case Finished():
                    check_reason(frame)
                    self.end = frame
                case _:
                    assert_never(frame)
        if self.end is None:
            raise RequestLost("Redis lost this request's answer; send it again.")


class GatheredAnswer:
    """Answers once, when all of the requests have finished."""

    def __init__(self, submits: Sequence[Submit], render: Callable[[Sequence[Part]], bytes], clock: Clock) -> None:
        """`render` makes a JSON body of all parts in order."""
        self._submits = submits
        self._render = render
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock)

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        parts: list[Part] = []
        listening: dict[asyncio.Task[None], Part] = {}
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_stop, listening)
            while len(parts) < len(self._submits) or listening:
                await self._submit_more(scope, stack, parts, listening)
                done, _ = await asyncio.wait(listening, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    part = listening.pop(task)
                    if task.exception() is not None:
                        remember(scope, part.reply.request_id)
                    task.result()
            body = self._render(parts)
            headers = whole_headers(parts[0].reply.request_id, len(body))
            await out.start(200, headers + _route_headers([part.reply for part in parts]))
            await out.write(body, last=True)

    async def _submit_more(
        self, scope: Scope, stack: AsyncExitStack, parts: list[Part], listening: dict[asyncio.Task[None], Part]
    ) -> None:
        while len(parts) < len(self._submits):
            try:
                reply = await self._submits[len(parts)]()
            except (BufferFull, TenantBufferFull):
                if not listening:
                    raise
                return
            if not parts:
                remember(scope, reply.request_id)
            parts.append(Part(await stack.enter_async_context(reply)))
            listening[asyncio.create_task(parts[-1].listen())] = parts[-1]


async def _stop(listening: dict[asyncio.Task[None], Part]) -> None:
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)


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
