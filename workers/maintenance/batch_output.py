"""What a batch has to show: its output and error file, written in the order in which lines end, each line once.

A flush writes what has come since the last one behind what counts of the files, makes that durable, and only then
moves what counts and marks the lines, in one script. A crash between the two leaves bytes that nobody counts and
that the next run writes over; it has those lines done again, or rather attaches to their requests.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from paddler.batches.batches import KEEP_S, Batches
from paddler.batches.contents import Contents
from paddler.batches.records import Batch
from paddler.clock import Clock
from paddler.ids import derived_id

FLUSH_S = 0.25
MAX_HELD = 4 * 1024 * 1024
"""Bytes that wait to be written; no line is begun while there are more."""


def output_ids(batch_id: str) -> tuple[str, str]:
    """Of the output and the error file: the same for each run."""
    return f"file-{derived_id(batch_id, 'output')}", f"file-{derived_id(batch_id, 'errors')}"


class Output:
    def __init__(self, batch: Batch, holder: str, batches: Batches, contents: Contents, clock: Clock) -> None:
        self.batch = batch
        """As of the last flush."""
        self._holder = holder
        self._batches = batches
        self._contents = contents
        self._clock = clock
        self._ids = output_ids(batch.id)
        self._is_closing = False
        self._done: list[int] = []
        self._num_not_run = 0
        self._texts: tuple[list[bytes], list[bytes]] = ([], [])
        self._num_held = 0
        self._room = asyncio.Event()
        self._room.set()

    def add(self, line: int, text: bytes, *, is_error: bool, was_run: bool = True) -> None:
        """A line is done: its text goes into the output file, or into the error file."""
        self._num_not_run += not was_run
        self._done.append(line)
        self._texts[is_error].append(text)
        self._num_held += len(text)
        if self._num_held > MAX_HELD:
            self._room.clear()

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def close(self) -> None:
        """Nothing is added any more: the loop ends when all is written."""
        self._is_closing = True

    async def flush_loop(self) -> None:
        """Raises as `flush_once`."""
        while self._done or not self._is_closing:
            await self.flush_once()
            if self._room.is_set() and not self._is_closing:
                await self._clock.sleep(FLUSH_S)

    async def flush_once(self) -> None:
        """Raises `LeaseLost`, and what Redis and the storage raise: then nothing may be added any more."""
        done, (good, bad), num_not_run = self._done, self._texts, self._num_not_run
        self._done, self._texts, self._num_held, self._num_not_run = [], ([], []), 0, 0
        self._room.set()
        if not done:
            return
        ends: list[int] = []
        for file_id, texts, end in zip(
            self._ids, (good, bad), (self.batch.output_bytes, self.batch.error_bytes), strict=True
        ):
            data = b"".join(texts)
            if data:
                await self._contents.write(file_id, end, data, KEEP_S)
                await self._contents.sync(file_id)
            ends.append(end + len(data))
        completed, failed = self.batch.completed + len(good), self.batch.failed + len(bad)
        not_run = self.batch.not_run + num_not_run

        def advanced(batch: Batch) -> Batch:
            return replace(
                batch,
                completed=completed,
                failed=failed,
                not_run=not_run,
                output_bytes=ends[0],
                error_bytes=ends[1],
                fruitless=0,
            )

        self.batch = await self._batches.change(self.batch.id, advanced, holder=self._holder, done=done)
