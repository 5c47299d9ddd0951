"""One run of a batch by one worker, from where the last has got to:

1. *Validate*: every line is read before one is run; any mistake fails the batch.
2. *Run*: lines in their order, so many at a time as the slots of their pools are worth; those that are done are passed
   over.
3. *Halt*: once the batch is cancelled or its window is over, what runs is stopped, and what is left is written down as
   not run.
4. *Finish*: the files are sealed, the batch gets its last status.

A crash at any point is gone on from by the next run: what is done is marked, requests are attached to under their ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from msgspec.structs import replace

from paddler.batches.batches import Batches, LeaseLost
from paddler.batches.files import Files
from paddler.batches.lines import LineFormat
from paddler.batches.records import Batch, FileRecord, LineError, Part
from paddler.batches.splitting import split_lines
from paddler.clock import Clock
from paddler.errors import FileNotFound
from paddler.jobs.gateway import Gateway
from paddler.logs import get_logger
from paddler.tenants.account import Account
from workers.maintenance.batch_check import check_lines
from workers.maintenance.batch_lines import CANCELLED, EXPIRED, Lines
from workers.maintenance.batch_output import Output
from workers.maintenance.batch_parts import join, joined_ids
from workers.maintenance.batch_pools import BatchPools

log = get_logger(__name__)

WATCH_S = 0.5
MAX_FRUITLESS = 20
"""Runs in a row that got nowhere: the batch kills workers, or meets a bug."""


MAX_UNKNOWN = 64
"""Lines in a row that nobody has submitted: those behind them have not been, either."""


class BatchRun:
    def __init__(
        self,
        batch: Batch,
        holder: str,
        batches: Batches,
        files: Files,
        gateway: Gateway,
        line_format: LineFormat,
        clock: Clock,
        *,
        lease_ms: int,
        account: Account | None = None,
    ) -> None:
        """`account` pays for its lines; None where there are no keys, or its key has been forgotten."""
        self._account = account
        self._batch = batch
        self._holder = holder
        self._batches = batches
        self._files = files
        self._gateway = gateway
        self._format = line_format
        self._clock = clock
        self._lease_ms = lease_ms
        self._lines: Lines | None = None

    async def run(self) -> None:
        """Raises `LeaseLost`, a `PaddlerError`, or what Redis or the storage raises: the next run goes on."""
        if self._batch.fruitless > MAX_FRUITLESS:
            await self._give_up(LineError("internal_error", "Run after run ended early; the workers' logs say why."))
            return
        try:
            record = await self._files.get(self._batch.input_file_id)
            await self._while_held(lambda group: self._run(record, group))
        except FileNotFound as error:
            await self._give_up(LineError(error.code, error.message))

    async def _give_up(self, error: LineError) -> None:
        await self._while_held(lambda _: self._fail([error]))

    async def _while_held(self, act: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_loop())
                await act(group)
                watching.cancel()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _run(self, record: FileRecord, group: asyncio.TaskGroup) -> None:
        if self._batch.status == "validating":
            await self._validate(record)
        if self._batch.has_ended:
            return
        if self._batch.total:
            await self._run_lines(record, group)
        await self._finish()

    async def _watch_loop(self) -> None:
        """Hold on to the batch, and halt its lines when it is time for that. Raises `LeaseLost`, and what Redis
        raises."""
        while True:
            batch = await self._batches.renew(self._batch.id, self._holder, lease_ms=self._lease_ms)
            if self._lines is not None and (why := self._reason_to_halt(batch)):
                await self._lines.halt_once(why)
            await self._clock.sleep(min(WATCH_S, self._lease_ms / 4000))

    def _reason_to_halt(self, batch: Batch) -> tuple[str, str] | None:
        if batch.status == "cancelling":
            return CANCELLED
        return EXPIRED if self._clock.wall() >= batch.expires_at else None

    async def _validate(self, record: FileRecord) -> None:
        """Step 1. A batch that is cancelled before it is over has no lines."""
        total, errors = await check_lines(self._files.read(record), self._batch.endpoint, self._format, self._clock)
        if errors:
            await self._fail(errors)
            return
        now = self._now()

        def in_progress(batch: Batch) -> Batch:
            if batch.status != "validating":
                return batch
            return replace(batch, status="in_progress", total=total, in_progress_at=now, fruitless=0, troubles=0)

        self._batch = await self._batches.change(self._batch.id, in_progress, holder=self._holder)

    async def _run_lines(self, record: FileRecord, group: asyncio.TaskGroup) -> None:
        """Steps 2 and 3."""
        done = await self._batches.done_lines(self._batch.id)
        output = Output(self._batch, self._holder, self._batches, self._files.contents, self._clock)
        pools = BatchPools(self._batch, self._holder, self._batches, self._gateway, self._clock)
        self._lines = lines = Lines(self._batch, self._gateway, self._format, pools, output, self._clock, self._account)
        lines.halted = self._reason_to_halt(self._batch)
        flushing = group.create_task(output.flush_loop())
        line = num_unknown = 0
        async for _, data in split_lines(self._files.read(record)):
            # Blank lines do not count: bits and ids are those of requests.
            line += 1
            if _is_set(done, line - 1):
                await self._clock.sleep(0)
                continue
            await lines.wait_for_room()
            if lines.halted is not None and num_unknown < MAX_UNKNOWN:
                # A lost worker may have begun it: it began lines in their order, so the first that are not done.
                num_unknown = 0 if await lines.stop(line, data) else num_unknown + 1
            elif lines.halted is not None:
                lines.skip(line, data)
            else:
                lines.begin(data)
                group.create_task(lines.run(line, data))
        await lines.wait_for_all()
        output.close()
        await flushing
        self._batch = output.batch

    async def _finish(self) -> None:
        """Step 4."""
        now = self._now()

        def finalizing(batch: Batch) -> Batch:
            if batch.status != "in_progress" or batch.not_run:
                return batch
            return replace(batch, status="finalizing", finalizing_at=now)

        batch = await self._batches.change(self._batch.id, finalizing, holder=self._holder)
        ids = await self._seal(batch)
        now = self._now()

        def ended(batch: Batch) -> Batch:
            batch = replace(batch, output_file_id=ids[0], error_file_id=ids[1], fruitless=0, troubles=0)
            if batch.status == "cancelling":
                return replace(batch, status="cancelled", cancelled_at=now)
            if batch.not_run:
                return replace(batch, status="expired", expired_at=now)
            return replace(batch, status="completed", completed_at=now)

        self._batch = await self._batches.end(batch.id, self._holder, ended)
        log.info(
            "a batch has ended",
            batch=batch.id,
            status=self._batch.status,
            completed=batch.completed,
            failed=batch.failed,
        )

    async def _seal(self, batch: Batch) -> tuple[str | None, str | None]:
        """Make files of what counts; returns the ids of the output and the error file. Raises `LeaseLost`,
        `FileNotFound` when some of it is gone, and what Redis and the storage raise."""
        contents, ttl_s = self._files.contents, batch.output_ttl_s
        output_id, error_id = joined_ids(batch.id)
        output = await join(contents, batch.output_parts, output_id, ttl_s)
        errors = await join(contents, batch.error_parts, error_id, ttl_s)

        def joined(batch: Batch) -> Batch:
            return replace(batch, output_parts=output, error_parts=errors)

        # Before a part is deleted: the next run finds the joined file in its place.
        await self._batches.change(batch.id, joined, holder=self._holder)
        for parts, name in ((output, "output"), (errors, "error")):
            for part in parts:
                await self._add(part, f"{batch.id}_{name}.jsonl", ttl_s)
        for part in (*batch.output_parts, *batch.error_parts):
            if part not in (*output, *errors):
                await contents.delete(part.file_id, part.num_bytes)
        return _id_of(output), _id_of(errors)

    async def _add(self, part: Part, filename: str, lifetime_s: int) -> None:
        created_at = self._now()
        await self._files.add(
            FileRecord(
                id=part.file_id,
                num_bytes=part.num_bytes,
                created_at=created_at,
                expires_at=created_at + lifetime_s,
                filename=filename,
                purpose="batch_output",
                place=self._files.contents.place,
                tenant=self._batch.tenant,
            )
        )

    async def _fail(self, errors: list[LineError]) -> None:
        """With what has been done till now in its files."""
        ids: tuple[str | None, str | None] = (None, None)
        try:
            ids = await self._seal(await self._batches.get(self._batch.id))
        except FileNotFound as error:
            errors = [*errors, LineError(error.code, error.message)]
        now = self._now()

        def failed(batch: Batch) -> Batch:
            return replace(
                batch,
                status="failed",
                failed_at=now,
                errors=tuple(errors),
                output_file_id=ids[0],
                error_file_id=ids[1],
            )

        self._batch = await self._batches.end(self._batch.id, self._holder, failed)
        # Its message may have a client's own words.
        first = errors[0]
        log.info("a batch has failed", batch=self._batch.id, errors=len(errors), first=first.code, line=first.line)

    def _now(self) -> int:
        return int(self._clock.wall())


def _id_of(parts: tuple[Part, ...]) -> str | None:
    return parts[0].file_id if parts else None


def _is_set(bits: bytes, index: int) -> bool:
    """As Redis counts them: the highest of a byte first."""
    return index // 8 < len(bits) and bool(bits[index // 8] & (128 >> (index % 8)))


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """What ended a run: that it was lost says more than what followed from it."""
    found: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop(0)
        if isinstance(error, BaseExceptionGroup):
            todo += cast(BaseExceptionGroup[BaseException], error).exceptions
        else:
            found.append(error)
    return next((error for error in found if isinstance(error, LeaseLost)), found[0])
