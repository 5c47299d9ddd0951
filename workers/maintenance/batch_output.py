"""What a batch has to show: its output and error file, written in the order in which lines end, each line once.

A flush writes what has come since the last one behind what counts of this run's parts, makes that durable, and only
then moves what counts and marks the lines, in one script. A crash between the two leaves bytes that nobody counts; the
next run has those lines done again, or rather attaches to their requests.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from paddler.batches.batches import KEEP_S, Batches
from paddler.batches.contents import Contents
from paddler.batches.records import Batch
from paddler.clock import Clock
from paddler.errors import QueueUnavailable
from workers.maintenance.batch_parts import grown, part_ids

FLUSH_S = 0.25
MAX_HELD = 4 * 1024 * 1024
"""Bytes that wait to be written; no line is begun while there are more."""


class Output:
    def __init__(self, batch: Batch, holder: str, batches: Batches, contents: Contents, clock: Clock) -> None:
        self.batch = batch
        """As of the last flush."""
        self._holder = holder
        self._batches = batches
        self._contents = contents
        self._clock = clock
        self._ids = part_ids(batch.id, holder)
        self._sizes = [0, 0]
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
        """Raises `LeaseLost`, `QueueUnavailable`, and what Redis and the storage raise: then nothing may be added any
        more."""
        done, (good, bad), num_not_run = self._done, self._texts, self._num_not_run
        self._done, self._texts, self._num_held, self._num_not_run = [], ([], []), 0, 0
        self._room.set()
        if not done:
            return
        for which, texts in enumerate((good, bad)):
            if data := b"".join(texts):
                await self._contents.write(self._ids[which], self._sizes[which], data, KEEP_S)
                await self._contents.sync(self._ids[which])
                self._sizes[which] += len(data)
        before = self.batch
        after = replace(
            before,
            completed=before.completed + len(good),
            failed=before.failed + len(bad),
            not_run=before.not_run + num_not_run,
            output_parts=grown(before.output_parts, self._ids[0], self._sizes[0]),
            error_parts=grown(before.error_parts, self._ids[1], self._sizes[1]),
        )

        def advanced(batch: Batch) -> Batch:
            # As after it when the answer to a change was lost. Otherwise Redis has forgotten its last second: the bits
            # of some lines are gone, and their bytes perhaps, so the next run begins with what Redis has.
            if _counted(batch) not in (_counted(before), _counted(after)):
                raise QueueUnavailable("Redis has forgotten what a run has written down.", retry_after_s=1)
            return replace(
                batch,
                completed=after.completed,
                failed=after.failed,
                not_run=after.not_run,
                output_parts=after.output_parts,
                error_parts=after.error_parts,
                fruitless=0,
                troubles=0,
            )

        self.batch = await self._batches.change(self.batch.id, advanced, holder=self._holder, done=done)


def _counted(batch: Batch) -> tuple[object, ...]:
    return batch.completed, batch.failed, batch.not_run, batch.output_parts, batch.error_parts
