"""Keeps a picture up to date: two streams, three questions asked now and then, each tried again when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote

from paddler.clock import Clock
from paddler.dashboard.client import CannotTalk, Management, Refused
from paddler.dashboard.filtering import Asked
from paddler.dashboard.objects import AgentList, BufferedRequests, Pool, PoolList, RequestPage, Timeline
from paddler.dashboard.picture import Listing, Picture, Story

POOL_S = 1.0
REQUESTS_S = 1.0
AGES_S = 5.0
POOLS_S = 10.0
"""Between two questions. Streams tell of agents and of the buffer at once; agents' ages and pools can wait."""
DELAYS_S = (0.5, 1.0, 2.0, 3.0)
"""Before a next try."""
MAX_REQUESTS = 500

_T = TypeVar("_T")


class Feed:
    """`run` never returns."""

    def __init__(self, management: Management, picture: Picture, clock: Clock) -> None:
        self.picture = picture
        self._asked: Asked | None = None
        self._watched: str | None = None
        self._management = management
        self._clock = clock
        self._base = f"/api/v1/pools/{quote(picture.pool_name, safe='')}"
        self._back = asyncio.Event()
        self._ask_now = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("agents", f"{self._base}/agents/stream", AgentList, self._agents))
            tasks.create_task(
                self._follow("buffer", f"{self._base}/buffered_requests/stream", BufferedRequests, self._buffer)
            )
            tasks.create_task(self._poll("pool", POOL_S, self._ask_pool))
            tasks.create_task(self._poll("ages", AGES_S, self._ask_ages))
            tasks.create_task(self._poll("pools", POOLS_S, self._ask_pools))
            tasks.create_task(self._ask_requests())
            tasks.create_task(self._sample())

    def want(self, asked: Asked | None) -> None:
        """Which requests are looked at from now on; None for none, so that nobody asks."""
        if asked != self._asked:
            self._asked = asked
            self.picture.requests_told(None)
            self._ask_now.set()

    def watch(self, request_id: str | None) -> None:
        """Whose story is told from now on; None for nobody's."""
        if request_id != self._watched:
            self._watched = request_id
            self.picture.story_told(None)
            self._ask_now.set()

    async def _follow(self, source: str, path: str, kind: type[_T], take: Callable[[_T], None]) -> None:
        """A stream that ends in order is opened again: its balancer stops, or its key was revoked."""
        tries = 0
        while True:
            try:
                async for told in self._management.events(path, kind):
                    tries = 0
                    take(told)
                    self._heard(source)
                self._silent(source, CannotTalk("the balancer has ended the stream"))
            except CannotTalk as error:
                self._silent(source, error)
            await self._pause(DELAYS_S[min(tries, len(DELAYS_S) - 1)], self._back)
            tries += 1

    async def _poll(self, source: str, interval_s: float, ask: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await ask()
                self._heard(source)
            except CannotTalk as error:
                self._silent(source, error)
                await self._pause(DELAYS_S[-1], self._back)
            else:
                await self._clock.sleep(interval_s)

    def _heard(self, source: str) -> None:
        had_trouble = self.picture.trouble is not None
        self.picture.heard(source, self._clock.monotonic())
        if had_trouble:  # whatever else waits for its next try may try now
            self._back.set()
            self._back = asyncio.Event()

    def _silent(self, source: str, error: CannotTalk) -> None:
        is_refusal = isinstance(error, Refused)
        self.picture.silent(source, str(error), self._clock.monotonic(), is_refusal=is_refusal)

    async def _pause(self, seconds: float, until: asyncio.Event) -> None:
        """So long, or until the event."""
        both = asyncio.create_task(until.wait()), asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()

    def _agents(self, told: AgentList) -> None:
        self.picture.agents_told(told.agents, self._clock.monotonic())

    def _buffer(self, told: BufferedRequests) -> None:
        self.picture.waiting_told(told.buffered_requests_current)

    async def _ask_pool(self) -> None:
        self.picture.pool_told(await self._management.get(self._base, Pool))

    async def _ask_ages(self) -> None:
        self._agents(await self._management.get(f"{self._base}/agents", AgentList))

    async def _ask_pools(self) -> None:
        told = await self._management.get("/api/v1/pools", PoolList)
        self.picture.pools_told([pool.name for pool in told.pools], has_worker=told.worker)

    async def _ask_requests(self) -> None:
        while True:
            self._ask_now.clear()
            asked, watched = self._asked, self._watched
            if asked is not None:
                listing = await self._list(asked)
                if asked == self._asked:
                    self.picture.requests_told(listing)
            if watched is not None:
                story = await self._tell(watched)
                if watched == self._watched:
                    self.picture.story_told(story)
            await self._pause(REQUESTS_S, self._ask_now)

    async def _list(self, asked: Asked) -> Listing:
        before = self.picture.requests
        query = dict(asked)
        try:
            page = await self._management.get(f"{self._base}/requests", RequestPage, limit=MAX_REQUESTS, **query)
        except Refused as error:
            return Listing([], trouble=str(error))
        except CannotTalk:
            return before or Listing([])  # the streams say what is wrong
        return Listing(page.requests, has_more=page.next_cursor is not None)

    async def _tell(self, request_id: str) -> Story:
        before = self.picture.story
        try:
            return Story(await self._management.get(f"/api/v1/requests/{request_id}", Timeline))
        except Refused as error:
            return Story(before.timeline if before else None, str(error))
        except CannotTalk:
            return before or Story(None)

    async def _sample(self) -> None:
        while True:
            self.picture.sample(self._clock.monotonic())
            await self._clock.sleep(1.0)
