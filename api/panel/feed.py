"""The live data of a balancer: read once for all who look, and only while somebody does."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Generator, Sequence

import msgspec

from api.panel.board import Board
from api.panel.topics import Topic
from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.metrics.history import History
from paddler.store.client import TROUBLE

TICK_S = 0.5
PATIENCE_S = 3.0
MAX_RECENT = 60
"""Ticks' samples that are kept for who reads slowly; its page asks for the history when it connects anyway."""

log = get_logger(__name__)


class Feed:
    """`watching` while somebody looks; `news` for what is new to them."""

    def __init__(self, topics: Sequence[Topic], history: History, clock: Clock) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._boards = {topic.name: Board() for topic in topics}
        self._history = history
        self._clock = clock
        self._wanted: Counter[str] = Counter()
        self._ticked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_entry = b""
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=MAX_RECENT)
        self._num_samples = 0

    @property
    def topics(self) -> list[str]:
        return list(self._topics)

    @contextlib.contextmanager
    def watching(self, topics: Sequence[str]) -> Generator[Viewer]:
        """Have these topics read for as long as this lasts."""
        self._wanted.update(topics)
        if self._task is None:
            self._task = asyncio.create_task(self._loop())
        try:
            yield Viewer(self, topics, self._num_samples)
        finally:
            self._wanted.subtract(topics)
            if not any(self._wanted.values()):
                self._task.cancel()
                self._task = None
                # Who comes next is to see nothing as old as this.
                self._boards = {name: Board() for name in self._boards}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait_tick(self) -> None:
        await self._ticked.wait()

    def board(self, name: str) -> Board:
        return self._boards[name]

    def samples_behind(self, number: int) -> list[bytes]:
        return [body for at, body in self._recent if at > number]

    @property
    def num_samples(self) -> int:
        return self._num_samples

    async def _loop(self) -> None:
        while True:
            began = self._clock.monotonic()
            await self.run_once()
            ticked, self._ticked = self._ticked, asyncio.Event()
            ticked.set()
            await self._clock.sleep(max(TICK_S / 2, began + TICK_S - self._clock.monotonic()))

    async def run_once(self) -> None:
        for name, topic in self._topics.items():
            if self._wanted[name] <= 0:
                continue
            try:
                async with asyncio.timeout(PATIENCE_S):
                    things = await topic.read()
                if things is not None:
                    self._boards[name].update(things)
            except TROUBLE as error:
                log.debug("cannot read for the live feed", topic=name, error=str(error))
            except Exception as error:
                log.error("cannot read for the live feed", topic=name, exc_info=error)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._read_samples()
        except TROUBLE as error:
            log.debug("cannot read the history for the live feed", error=str(error))
        except Exception as error:
            log.error("cannot read the history for the live feed", exc_info=error)

    async def _read_samples(self) -> None:
        is_first = not self._last_entry
        self._last_entry, samples = await self._history.since(self._last_entry)
        if samples and not is_first:  # the first time it is all that there are, which pages ask for
            self._num_samples += 1
            self._recent.append((self._num_samples, msgspec.json.encode(samples)))


class Viewer:
    """One who looks, and what it has been told."""

    def __init__(self, feed: Feed, topics: Sequence[str], num_samples: int) -> None:
        self._feed = feed
        self._seen = dict.fromkeys(topics, 0)
        self._boards = {name: feed.board(name) for name in topics}
        self._num_samples = num_samples

    def news(self) -> bytes:
        """Events, empty for none."""
        parts: list[bytes] = []
        for name, board in self._boards.items():
            if (change := board.since(self._seen[name])) is not None:
                parts.append(b'"%b":%b' % (name.encode(), change))
                self._seen[name] = board.version
        told = b"event: change\ndata: {%b}\n\n" % b",".join(parts) if parts else b""
        for samples in self._feed.samples_behind(self._num_samples):
            told += b"event: samples\ndata: %b\n\n" % samples
        self._num_samples = self._feed.num_samples
        return told
