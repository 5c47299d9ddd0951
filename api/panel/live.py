"""`GET /panel/api/live`: everything that moves, as one stream of server-sent events.

| event | data |
|---|---|
| `change` | by topic: `reset` (forget what you have), `set` (things by key), `gone` (keys) |
| `samples` | what is new for the charts, as in `/panel/api/history` |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from litestar.types import Receive, Scope, Send

from api.connection import Outgoing, run_while_connected
from api.management.stream import EVENTS, Comments
from api.panel.feed import Feed
from paddler.clock import Clock

CHECK_S = 5.0
"""After a session has ended elsewhere its streams end so soon; those of a key that is good no more do at a tick."""


class LiveStream:
    def __init__(
        self,
        feed: Feed,
        topics: Sequence[str],
        stopping: asyncio.Event,
        clock: Clock,
        is_let_in: Callable[[], bool],
        is_session_open: Callable[[], Awaitable[bool]],
    ) -> None:
        """Ends with the balancer, and when `is_let_in`, asked at each tick, or `is_session_open` says so."""
        self._feed = feed
        self._topics = topics
        self._stopping = stopping
        self._clock = clock
        self._is_let_in = is_let_in
        self._is_session_open = is_session_open

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._tell(out), receive, out, self._clock, Comments(out))

    async def _tell(self, out: Outgoing) -> None:
        await out.start(200, EVENTS)
        await out.write(b":\n\n")
        checked_at = self._clock.monotonic()
        with self._feed.watching(self._topics) as viewer:
            while not self._stopping.is_set() and self._is_let_in():
                if news := viewer.news():
                    await out.write(news)
                if self._clock.monotonic() - checked_at > CHECK_S:
                    checked_at = self._clock.monotonic()
                    if not await self._is_session_open():
                        break
                await self._feed.wait_tick()
        await out.write(b"", last=True)
