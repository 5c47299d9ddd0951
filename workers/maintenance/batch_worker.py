"""The arq worker that runs batches, beside that of the upkeep: a queue of its own, so that batches never hold that
up."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from arq.worker import Retry, Worker, func

from paddler.batches.batches import Batches, LeaseLost
from paddler.batches.contents import Contents
from paddler.batches.files import Files
from paddler.batches.jobs import FUNCTION, MAX_RUN_S, arq_redis, decode_job
from paddler.batches.lines import LineFormat, load_format
from paddler.batches.records import Batch
from paddler.clock import Clock
from paddler.errors import BatchNotFound, FileNotFound, KeyNotFound, PaddlerError
from paddler.ids import new_process_id
from paddler.jobs.gateway import Gateway, GatewaySettings
from paddler.logs import get_logger
from paddler.store.client import COMMAND_TIMEOUT_S, TROUBLE, Store, connection_pool
from paddler.store.keys import batch_jobs_key
from paddler.store.remedies import remedy_for
from paddler.tenants.account import Account
from paddler.tenants.keys import ApiKeys
from workers.maintenance.batch_run import BatchRun

log = get_logger(__name__)

MAX_AT_ONCE = 10
"""Batches that one worker runs side by side; the next waits for one of them or for another worker."""
GIVE_BACK_S = 1.0
PURGE_S = 60.0
ELSEWHERE_S = 1.0
"""After so long a batch that this worker cannot read is offered again."""


class BatchRunner:
    """Runs batches, whose requests it submits and follows as a balancer does. `close` gives them back."""

    def __init__(self, store: Store, contents: Contents, clock: Clock, *, lease_ms: int) -> None:
        self.batches = Batches(store, clock)
        self.files = Files(store, contents, clock)
        self._keys = ApiKeys(store, clock)
        self._clock = clock
        self._lease_ms = lease_ms
        self._holder = new_process_id("worker")
        self._num_runs = 0
        self._format: LineFormat | None = None
        # Requests of a batch are background ones, which outlive this process.
        self._gateway = Gateway(store, GatewaySettings(), clock)
        self._is_started = False
        self._starting = asyncio.Lock()
        self.failed = self._gateway.failed
        """The gateway cannot go on: the process must end."""

    async def run(self, batch_id: str) -> bool:
        """Take a batch and run it to its end, or until it is lost or cannot go on. False when its input is where this
        worker does not look: another must take it. Only a cancellation is raised."""
        self._num_runs += 1
        holder = f"{self._holder}:{self._num_runs}"
        try:
            if not await self._has_input(batch_id):
                return False
            batch = await self.batches.take(batch_id, holder, lease_ms=self._lease_ms)
            if batch is not None:
                log.info("running a batch", batch=batch.id, status=batch.status, run=batch.runs)
                await self._run_or_rest(batch, holder)
        except LeaseLost:
            log.warning("another worker has taken the batch", batch=batch_id)
        except (*TROUBLE, PaddlerError) as error:
            # The upkeep has it run again, from where it has got to.
            log.warning("a batch was interrupted", batch=batch_id, error=str(error) or type(error).__name__)
        except Exception as error:
            log.error("a batch cannot be taken", batch=batch_id, exc_info=error)
        return True

    async def _has_input(self, batch_id: str) -> bool:
        try:
            batch = await self.batches.get(batch_id)
            record = await self.files.get(batch.input_file_id)
        except (BatchNotFound, FileNotFound):
            # Whoever takes it ends it.
            return True
        if record.place == self.files.contents.place:
            return True
        log.error("a batch is left to others", batch=batch_id, input=record.place, own=self.files.contents.place)
        return False

    async def _run_or_rest(self, batch: Batch, holder: str) -> None:
        """Raises `LeaseLost`, and what Redis raises."""
        try:
            await self._run(batch, holder)
        except LeaseLost:
            raise
        except (*TROUBLE, PaddlerError) as error:
            rest_s = await self.batches.rest(batch.id, holder, is_fruitless=False)
            told = str(error) or type(error).__name__
            log.warning("a batch was interrupted", batch=batch.id, error=told, rest_s=rest_s)
        except Exception as error:
            rest_s = await self.batches.rest(batch.id, holder, is_fruitless=True)
            log.error("a run of a batch failed", batch=batch.id, rest_s=rest_s, exc_info=error)
        except BaseException:
            await self._release(batch.id, holder)
            raise
        else:
            await self._release(batch.id, holder)

    async def _run(self, batch: Batch, holder: str) -> None:
        line_format = await self._start()
        run = BatchRun(
            batch,
            holder,
            self.batches,
            self.files,
            self._gateway,
            line_format,
            self._clock,
            lease_ms=self._lease_ms,
            account=await self._account(batch),
        )
        await run.run()

    async def _account(self, batch: Batch) -> Account | None:
        """With the limits that its key has now. A batch that was accepted is run, whatever has become of its key."""
        with contextlib.suppress(KeyNotFound):
            return Account(key=await self._keys.get(batch.api_key))
        return None

    async def _start(self) -> LineFormat:
        """With the first batch: a worker without any need not follow anything."""
        async with self._starting:
            if self._format is None:
                # Half a second of imports.
                self._format = await asyncio.to_thread(load_format)
            if not self._is_started:
                await self._gateway.start()
                self._is_started = True
            return self._format

    async def _release(self, batch_id: str, holder: str) -> None:
        with contextlib.suppress(*TROUBLE):
            await asyncio.shield(self.batches.release(batch_id, holder))

    async def upkeep_loop(self) -> None:
        """Every second give away what a lost worker had, now and then forget what has expired; never returns."""
        next_purge = self._clock.monotonic()
        while True:
            try:
                for batch_id in await self.batches.give_back_lost():
                    log.info("a batch that no worker has is given to one", batch=batch_id)
                if self._clock.monotonic() >= next_purge:
                    next_purge = self._clock.monotonic() + PURGE_S
                    await self.files.purge_once()
                    await self.batches.purge_once()
            except TROUBLE as error:
                log.warning("cannot look after batches, trying again", error=str(error), remedy=remedy_for(error))
            except Exception as error:
                # A record that this version cannot read, say: others have their turn.
                log.error("cannot look after batches", exc_info=error)
            await self._clock.sleep(GIVE_BACK_S)

    async def close(self) -> None:
        if self._is_started:
            await self._gateway.close()


async def run_batch(ctx: dict[Any, Any], batch_id: str) -> None:
    """The job of one run of a batch. Raises `Retry` for another worker to have it."""
    runner: BatchRunner = ctx["batches"]
    if not await runner.run(batch_id):
        raise Retry(defer=ELSEWHERE_S)


def build_batch_worker(store: Store, runner: BatchRunner) -> Worker:
    """An arq worker on the same Redis."""
    queue_name = batch_jobs_key(store.prefix)
    pool = connection_pool(store.url, timeout_s=COMMAND_TIMEOUT_S, retries=3, max_connections=8)
    return Worker(
        [func(run_batch, name=FUNCTION, keep_result=0, timeout=MAX_RUN_S, max_tries=1_000_000)],
        queue_name=queue_name,
        redis_pool=arq_redis(pool, queue_name),
        ctx={"batches": runner},
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=decode_job,
        handle_signals=False,
        log_results=False,
        max_jobs=MAX_AT_ONCE,
        poll_delay=0.25,
        health_check_interval=30,
    )
