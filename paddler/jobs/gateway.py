"""The balancer's view of the fleet: submit a request, read its frames, cancel it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from msgspec import Struct

from paddler.clock import Clock
from paddler.errors import (
    BufferFull,
    ModelNotFound,
    QueueUnavailable,
    ShuttingDown,
    error_of,
)
from paddler.ids import new_process_id, new_request_id, pool_of
from paddler.jobs.inbox import Inbox
from paddler.jobs.mailbox import Mailbox
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store
from paddler.store.scripts import Admission
from paddler.wire.agent import Payload, encode_payload
from paddler.wire.balancer import Failed, Finished, FinishReason, Opened, Tokens, encode_frame

log = get_logger(__name__)

DEFAULT_POOL = "default"
SUBSCRIBE_TIMEOUT_S = 3.0
CANCEL_PATIENCE_S = 30.0
MODELS_TTL_S = 1.0
CANCELLED_FRAME = encode_frame(Finished(FinishReason.CANCELLED))


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """`buffered_request_timeout_ms` 0: a request that no free slot takes at once ends with `StartTimeout`."""

    max_buffered_requests: int = 30
    buffered_request_timeout_ms: int = 10_000
    inference_item_timeout_ms: int = 30_000


class PoolModel(Struct, frozen=True):
    """A name that `model` in a request may have. `created` is seconds since the epoch."""

    id: str
    pool: str
    created: int


class Reply:
    """One request, seen from the balancer. Leaving the context before the terminal frame cancels the request."""

    def __init__(self, gateway: Gateway, mailbox: Mailbox) -> None:
        self._gateway = gateway
        self._mailbox = mailbox
        self.request_id = mailbox.request_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gateway.leave(self._mailbox)

    async def __aiter__(self) -> AsyncIterator[Opened | Tokens | Finished]:
        """Every frame in order, ending after `Finished`. Raises a `PaddlerError` for any other end."""
        while True:
            await self._mailbox.wait()
            for frame in self._mailbox.take():
                match frame:
                    case Failed():
                        raise error_of(frame)
                    case Finished():
                        yield frame
                        return
                    case _:
                        yield frame

    async def wait_opened(self, timeout_s: float) -> bool:
        """True once the first frame is there, False after `timeout_s`; nothing is consumed.

        Raises a `PaddlerError` when the request has failed before its first token."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._mailbox.wait()
        except TimeoutError:
            return False
        failure = self._mailbox.first_failure()
        if failure is not None:
            raise error_of(failure)
        if not self._mailbox.is_opened and self._mailbox.error is not None:
            raise self._mailbox.error
        return True


class Gateway:
    """Submits to any pool and follows what was submitted. `start` before use, `close` after."""

    def __init__(self, store: Store, settings: GatewaySettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._inbox = Inbox(
            store,
            clock,
            new_process_id("balancer"),
            start_timeout_ms=settings.buffered_request_timeout_ms,
            item_timeout_ms=settings.inference_item_timeout_ms,
        )
        self._cancels: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._models: list[PoolModel] = []
        self._models_until = 0.0
        self._is_closing = False

    async def start(self) -> None:
        """Start the background loops; Redis need not be there yet."""
        loops = (self._inbox.subscribe_loop(), self._inbox.sweep_loop(), self._cancel_loop())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def close(self) -> None:
        """End all open streams with `ShuttingDown`, cancel their requests, stop."""
        self.stop_accepting()
        for mailbox in self._inbox.mailboxes():
            self.leave(mailbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._cancels.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop_accepting(self) -> None:
        """Refuse new requests and tell the clients of open ones."""
        self._is_closing = True
        for mailbox in self._inbox.mailboxes():
            mailbox.fail(ShuttingDown("this balancer is stopping; send the request to another one.", retry_after_s=1))

    async def submit(
        self, pool: str, payload: Payload, *, request_class: str = "normal", tenant: str = "anonymous"
    ) -> Reply:
        """Steps 1 and 2. Raises `BufferFull` or `QueueUnavailable`."""
        if self._is_closing:
            raise ShuttingDown("this balancer is stopping; send the request to another one.", retry_after_s=1)
        await self._inbox.wait_subscribed(SUBSCRIBE_TIMEOUT_S)
        mailbox = self._inbox.open(new_request_id(pool))
        try:
            submitted = await self._store.pool(pool).submit(
                request_id=mailbox.request_id,
                request_class=request_class,
                tenant=tenant,
                payload=encode_payload(payload),
                inbox=self._inbox.channel,
                start_timeout_ms=max(1, self._settings.buffered_request_timeout_ms),
                max_waiting=self._settings.max_buffered_requests,
            )
        except TROUBLE as error:
            # It may have run although its answer was lost.
            self.leave(mailbox)
            log.warning("submit failed", request=mailbox.request_id, error=str(error))
            raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error
        except BaseException:
            self.leave(mailbox)
            raise
        if submitted.admission is Admission.FULL:
            self._inbox.close(mailbox.request_id)
            raise BufferFull(
                f"{submitted.position} requests wait already, as many as --max-buffered-requests allows.",
                retry_after_s=max(1, self._settings.buffered_request_timeout_ms // 1000),
            )
        return Reply(self, mailbox)

    def leave(self, mailbox: Mailbox) -> None:
        """Nobody reads this mailbox any more; an unfinished request is cancelled."""
        self._inbox.close(mailbox.request_id)
        if not mailbox.is_ended:
            mailbox.is_ended = True
            self._cancels.put_nowait(mailbox.request_id)

    async def _cancel_loop(self) -> None:
        pending: set[asyncio.Task[None]] = set()
        while True:
            request_id = await self._cancels.get()
            task = asyncio.create_task(self._cancel(request_id))
            pending.add(task)
            task.add_done_callback(pending.discard)

    async def _cancel(self, request_id: str) -> None:
        end = self._clock.monotonic() + CANCEL_PATIENCE_S
        try:
            while self._clock.monotonic() < end:
                try:
                    outcome = await self._store.pool(pool_of(request_id)).cancel(request_id, CANCELLED_FRAME)
                except TROUBLE:
                    await self._clock.sleep(1.0)
                else:
                    log.debug("cancelled", request=request_id, outcome=outcome)
                    return
        finally:
            self._cancels.task_done()

    async def health(self) -> bool:
        """Is Redis there?"""
        return self._inbox.is_subscribed()

    async def resolve(self, model: str) -> str:
        """The pool that serves `model`, by pool or model name. Raises `ModelNotFound`."""
        if model == DEFAULT_POOL:
            return DEFAULT_POOL
        known = await self.models()
        for entry in known:
            if entry.id == model:
                return entry.pool
        names = ", ".join(entry.id for entry in known)
        raise ModelNotFound(f"no pool serves the model {model!r}; there is: {names}", param="model")

    async def models(self) -> list[PoolModel]:
        """Pool names and the models their agents serve. Raises `QueueUnavailable`."""
        now = self._clock.monotonic()
        if now >= self._models_until:
            try:
                self._models = await self._read_models()
            except TROUBLE as error:
                raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
            self._models_until = now + MODELS_TTL_S
        return self._models

    async def _read_models(self) -> list[PoolModel]:
        found: list[PoolModel] = []
        for pool in sorted({DEFAULT_POOL, *await self._store.pool_names()}):
            key = self._store.pool(pool).keys.models()
            fields: dict[bytes, bytes] = await self._store.redis.hgetall(key)
            created = {name.decode(): int(seen) for name, seen in fields.items()}
            found.append(PoolModel(pool, pool, min(created.values(), default=0)))
            found += [PoolModel(name, pool, seen) for name, seen in sorted(created.items()) if name != pool]
        return found
