"""The lines of a batch that are under way: each submitted to the queue under ids that every run of the batch makes
alike, and followed to its end.

A request that an earlier run has submitted is followed, whether it waits, runs or has ended. Only once Redis has
forgotten it, ten minutes after its end, would it be run again, and then nobody had written down what it said.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from paddler.batches.batches import LeaseLost
from paddler.batches.lines import LineCall, LineFormat, LineProblem, LineRequest
from paddler.batches.records import Batch
from paddler.clock import Clock
from paddler.errors import (
    BufferFull,
    EngineFailed,
    InvalidField,
    ItemTimeout,
    PaddlerError,
    QueueUnavailable,
    RequestCancelled,
    RequestLost,
    RequestNotFound,
    ShuttingDown,
    TenantBufferFull,
)
from paddler.ids import derived_id, pool_of
from paddler.jobs.gateway import Gateway, Submit
from paddler.jobs.heard import Answer, hear
from paddler.logs import get_logger
from paddler.store.client import TROUBLE
from paddler.tenants.account import Account
from workers.maintenance.batch_output import Output
from workers.maintenance.batch_pools import BatchPools

log = get_logger(__name__)

_T = TypeVar("_T")

FOLLOWED_AGAIN = (
    *(BufferFull, ItemTimeout, QueueUnavailable, RequestLost, RequestNotFound, ShuttingDown, TenantBufferFull),
)
"""What tells something of the way to a request and nothing of the request: it is asked for again under its id."""
RETRY_S = 0.25
MAX_RETRY_S = 5.0
MAX_BYTES = 64 * 1024 * 1024
"""Of the lines that are under way, unless it is one alone: each is held until its end."""

CANCELLED = ("batch_cancelled", "This batch was cancelled before this request was executed.")
EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")


Resolve = Callable[[str], Awaitable[str]]
"""The pool of a model name."""
Ask = Callable[[LineRequest, str], Awaitable[Answer]]
"""The answer to a request of a line, which has that id."""


class Lines:
    """`halt` stops what is under way: each line ends, done or not."""

    def __init__(
        self,
        batch: Batch,
        gateway: Gateway,
        line_format: LineFormat,
        pools: BatchPools,
        output: Output,
        clock: Clock,
        account: Account | None = None,
    ) -> None:
        self._account = account
        self._batch = batch
        self._gateway = gateway
        self._format = line_format
        self._pools = pools
        self._output = output
        self._clock = clock
        self._num_running = 0
        self._num_bytes = 0
        self._has_room = asyncio.Event()
        self._asked: set[str] = set()
        self.halted: tuple[str, str] | None = None
        """Why no line is begun any more: `CANCELLED` or `EXPIRED`."""

    async def wait_for_room(self) -> None:
        """Until fewer lines are under way than may be."""
        await self._output.wait_for_room()
        while True:
            # Before looking: a line may end while the window is read anew.
            self._has_room.clear()
            if self.halted is not None or not self._num_running:
                return
            if self._num_bytes < MAX_BYTES and self._num_running < await self._pools.window():
                return
            with contextlib.suppress(TimeoutError):
                # More agents may have come.
                async with asyncio.timeout(1.0):
                    await self._has_room.wait()

    async def wait_for_all(self) -> None:
        while self._num_running:
            self._has_room.clear()
            await self._has_room.wait()

    def begin(self, data: bytes) -> None:
        """Before `run`, which may come later."""
        self._num_running += 1
        self._num_bytes += len(data)

    async def run(self, line: int, data: bytes) -> None:
        """Raises `LeaseLost`, and what Redis raises."""
        try:
            custom_id, request_id, outcome = await self._run(line, data, self._pools.resolve, self._ask)
        finally:
            self._num_running -= 1
            self._num_bytes -= len(data)
            self._has_room.set()
        self._write_down(line, data, custom_id, request_id, outcome)

    def _write_down(
        self, line: int, data: bytes, custom_id: str, request_id: str | None, outcome: list[bytes] | PaddlerError
    ) -> None:
        line_id = self._line_id(line)
        if not isinstance(outcome, PaddlerError):
            text = self._format.answered(line_id, custom_id, str(request_id), outcome)
            self._output.add(line, text, is_error=False)
        elif self.halted is not None and isinstance(outcome, (RequestCancelled, *FOLLOWED_AGAIN)):
            self.skip(line, data)
        else:
            self._output.add(line, self._format.refused(line_id, custom_id, request_id, outcome), is_error=True)

    def skip(self, line: int, data: bytes) -> None:
        """A line that is not run, or not to its end, as the batch is halted."""
        assert self.halted is not None
        text = self._format.not_run(self._line_id(line), self._format.custom_id(data), *self.halted)
        self._output.add(line, text, is_error=True, was_run=False)

    async def stop(self, line: int, data: bytes) -> bool:
        """Of a batch that is halted as this run begins: end what an earlier run has submitted of a line, and keep its
        answer if it has one. False if nobody knows of any. Raises `QueueUnavailable`, and what Redis raises."""
        known: list[str] = []

        async def stop_one(_: LineRequest, request_id: str) -> Answer:
            await self._gateway.cancel(request_id)
            known.append(request_id)
            async with await self._gateway.follow(request_id) as reply:
                return await hear(reply)

        custom_id, request_id, outcome = await self._run(line, data, self._pools.known, stop_one)
        if isinstance(outcome, QueueUnavailable):
            # It may run: the next run stops it.
            raise outcome
        self._write_down(line, data, custom_id, request_id, outcome)
        return bool(known)

    async def halt_once(self, why: tuple[str, str]) -> None:
        """Have the queue stop what it runs; to be repeated until all have ended."""
        self.halted = why
        self._has_room.set()
        for request_id in list(self._asked):
            with contextlib.suppress(PaddlerError):
                await self._gateway.cancel(request_id)

    async def _run(
        self, line: int, data: bytes, resolve: Resolve, ask: Ask
    ) -> tuple[str, str | None, list[bytes] | PaddlerError]:
        """What the client calls it, its first request's id, and its answer."""
        custom_id = self._format.custom_id(data)
        request_id = None
        try:
            # Without a seed of its own a line has the same one in each run.
            seed = int.from_bytes(derived_id(self._batch.id, line, "seed").encode()[:4], "big")
            call = await self._format.read(data, self._batch.endpoint, seed=seed, created=int(self._clock.wall()))
            pool = await self._patiently(partial(resolve, call.model))
            names = [f"{pool}.{derived_id(self._batch.id, line, index)}" for index in range(len(call.requests))]
            request_id = names[0]
            return custom_id, request_id, await self._rendered(call, await self._ask_all(call, names, ask))
        except LineProblem as problem:
            # It was read without one as the batch began: this worker has another version.
            return custom_id, None, InvalidField(problem.message, param=problem.param)
        except PaddlerError as error:
            return custom_id, request_id, error
        except (LeaseLost, *TROUBLE):
            raise
        except Exception as error:
            log.error("a line of a batch failed", batch=self._batch.id, line=line, exc_info=error)
            return custom_id, request_id, EngineFailed("Internal error; the worker's log has the details.")

    async def _rendered(self, call: LineCall, answers: list[Answer]) -> list[bytes]:
        if sum(len(answer.vectors) for answer in answers) < 16:
            return list(call.render(answers))
        return await asyncio.to_thread(lambda: list(call.render(answers)))

    async def _ask_all(self, call: LineCall, names: list[str], ask: Ask) -> list[Answer]:
        """Each to its end, whatever becomes of the others. Raises the first error."""
        asked = (ask(request, name) for request, name in zip(call.requests, names, strict=True))
        answers: list[Answer] = []
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
        return answers

    async def _ask(self, request: LineRequest, request_id: str) -> Answer:
        how = Submit(
            request_class="batch",
            is_background=True,
            tenant=self._batch.tenant,
            weight=1.0 if self._account is None else self._account.key.limits.weight,
            account=self._account,
            label=request.label,
            request_id=request_id,
        )

        async def ask_once() -> Answer:
            async with await self._gateway.submit(pool_of(request_id), request.payload, how) as reply:
                return await hear(reply)

        self._asked.add(request_id)
        try:
            return await self._patiently(ask_once)
        finally:
            self._asked.discard(request_id)

    async def _patiently(self, act: Callable[[], Awaitable[_T]]) -> _T:
        """Again and again while that tells nothing of the request, unless the batch is halted."""
        delay = RETRY_S
        while True:
            try:
                return await act()
            except FOLLOWED_AGAIN as error:
                log.debug("trying again for a line", batch=self._batch.id, error=error.message)
                if self.halted is None:
                    await self._clock.sleep(delay * (0.5 + random.random()))
                if self.halted is not None:
                    raise
            delay = min(delay * 2, MAX_RETRY_S)

    def _line_id(self, line: int) -> str:
        return f"batch_req_{derived_id(self._batch.id, line)}"
