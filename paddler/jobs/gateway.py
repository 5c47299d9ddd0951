"""The balancer's view of the fleet: submit a request, follow it, stop following it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import random
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from redis.exceptions import OutOfMemoryError

from paddler.clock import Clock
from paddler.desired.sampling import filled
from paddler.desired.view import DesiredView
from paddler.errors import (
    BufferFull,
    EmbeddingsOff,
    IdempotencyMismatch,
    InvalidField,
    ItemTimeout,
    PaddlerError,
    QueueUnavailable,
    RequestLost,
    RequestNotFound,
    ShuttingDown,
    TenantBufferFull,
)
from paddler.ids import new_process_id, new_request_id, pool_of
from paddler.jobs.chains import chain_of, estimate_tokens, expected_output, pack_chain
from paddler.jobs.endings import CANCELLED_FRAME
from paddler.jobs.fleet_view import FleetView, PoolView
from paddler.jobs.inbox import Inbox
from paddler.jobs.leaving import Leaving
from paddler.jobs.mailbox import Mailbox
from paddler.jobs.measuring import Measuring, measured_of
from paddler.jobs.measuring import Meter as Measurer
from paddler.jobs.models import DEFAULT_POOL, Models, PoolModel
from paddler.jobs.ownership import Ownership
from paddler.jobs.reply import Reply, frames_before
from paddler.jobs.responses import Responses, StorageSettings
from paddler.jobs.standing import num_waiting_of_tenant, standing_of
from paddler.jobs.status import Place, RequestStatus, not_found, read_status
from paddler.jobs.watchman import Watchman
from paddler.logs import get_logger
from paddler.routing.admission import retry_after_s, tenant_max
from paddler.store.client import TROUBLE, Store
from paddler.store.fitness import warn_of_faults
from paddler.store.results import Admission, Cancelled, Submission, Submitted
from paddler.store.tally import Tally
from paddler.tenants.account import Account
from paddler.tenants.meter import NOTHING, Meter, Reservation
from paddler.tenants.records import ANONYMOUS
from paddler.wire.agent import Embed, Generate, Payload, Rerank, encode_payload

__all__ = ["DEFAULT_POOL", "Gateway", "GatewaySettings", "PoolModel", "Reply", "RequestStatus", "Submit"]

log = get_logger(__name__)

SUBSCRIBE_TIMEOUT_S = 3.0
REDIS_PATIENCE_S = 8.0
STOP_PATIENCE_S = 1.0
FOLLOW_LEASE_MS = 10_000
FULL_WAITS_S = (0.05, 0.15, 0.45)
TALLY_S = 1.0
ENDED = ("done", "failed", "cancelled")
COUNTED_ENDS: dict[type[Any], str] = {
    ItemTimeout: "item_timeouts",
    RequestLost: "request_lost",
    QueueUnavailable: "unavailable",
}
STOPPING = "this balancer is stopping; send the request to another one."


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """`buffered_request_timeout_ms` 0: a request that no free slot takes at once ends with `StartTimeout`.

    `max_estimated_wait_ms` 0 and `tenant_share` 1.0 switch those bounds off. `cancel_on_stop`: requests do not outlive
    this balancer, as there is no other one to resume them at. `shares_prefix_cache`: a tenant's prompt may begin with
    cells that were computed for another tenant, which tells both by the time it takes what the other has asked."""

    max_buffered_requests: int = 30
    max_batch_requests: int = 100_000
    buffered_request_timeout_ms: int = 10_000
    inference_item_timeout_ms: int = 30_000
    max_estimated_wait_ms: int = 0
    tenant_share: float = 1.0
    cancel_on_stop: bool = False
    shares_prefix_cache: bool = False
    storage: StorageSettings = StorageSettings()


class Submit(Struct, frozen=True, kw_only=True):
    """How a request is to be treated. `hint` breaks ties between agents. `start_timeout_ms` None is the balancer's, 0
    no deadline.

    `label` is kept with the request for whoever follows it later. A tenant's requests with one `idempotency_key` are
    one request, unless it failed or was cancelled; their `fingerprint` must be the same. `can_be_resumed` False: its
    client cannot follow it again, so it is not left running for that when this balancer stops or Redis is away.
    `may_come_back`: nor is it cancelled when its client's connection breaks; not followed again it is an orphan.

    `account` is whose limits it is charged to and whose usage it is, None for nobody's; `num_parts` is how many
    requests its call has, 0 for all but the first of them.

    `request_id`, of the same pool, is a name that its client can make again: a request that has been submitted under it
    is followed from its beginning, also when it has ended, and never submitted twice while Redis knows it.
    `traceparent` is the W3C trace context that its agent goes on with."""

    request_class: str = "normal"
    tenant: str = ANONYMOUS
    weight: float = 1.0
    hint: str = ""
    start_timeout_ms: int | None = None
    is_background: bool = False
    idempotency_key: str = ""
    fingerprint: str = ""
    label: bytes = b""
    can_be_resumed: bool = True
    may_come_back: bool = False
    request_id: str = ""
    account: Account | None = None
    num_parts: int = 1
    traceparent: str = ""


class Gateway:
    """Submits to any pool and follows what was submitted. `start` before use, `close` after."""

    def __init__(self, store: Store, settings: GatewaySettings, clock: Clock, meters: Sequence[Measurer] = ()) -> None:
        """`meters` are told of what is submitted here."""
        self._meters = meters
        self._store = store
        self._settings = settings
        self._clock = clock
        self.balancer_id = new_process_id("balancer")
        self._tally = Tally(store)
        self._inbox = Inbox(
            store, clock, self.balancer_id, self._tally, item_timeout_ms=settings.inference_item_timeout_ms
        )
        self._views = FleetView(store, clock)
        self.desired = DesiredView(store, clock)
        self._models = Models(store, clock)
        self.responses = Responses(store, settings.storage)
        self.ownership = Ownership(store)
        self._leaving = Leaving(store, clock, self._inbox)
        self._meter = Meter(store)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self.failed: asyncio.Event = asyncio.Event()
        """A loop ended by a bug: nothing is followed or mended any more, the process must end."""
        self.stopping: asyncio.Event = asyncio.Event()
        """Nothing new is accepted, and what is open has failed."""

    async def start(self) -> None:
        """Start the background loops; Redis need not be there yet."""
        loops = (self._inbox.subscribe_loop(), self._inbox.sweep_loop(), self._follow_loop())
        loops = (*loops, self._leaving.leave_loop(), self._leaving.remind_loop())
        loops = (*loops, warn_of_faults(self._store, self._clock))
        loops = (*loops, self._tally_loop(), Watchman(self._store, self._clock).watch_loop())
        for loop in loops:
            self.supervise(loop)

    async def close(self) -> None:
        """End all open streams with `ShuttingDown`, give up the lease, stop.

        Their requests live on, for their clients to resume at another balancer; who does not within the grace time has
        left an orphan, which the worker cancels (step 13). With `cancel_on_stop`, and where their clients cannot, they
        are cancelled."""
        self.stop_accepting()
        for mailbox in self._inbox.mailboxes():
            self._leave(mailbox)
        await self._leaving.join(STOP_PATIENCE_S)
        await self._meter.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*TROUBLE):
            async with asyncio.timeout(STOP_PATIENCE_S):
                for pool in {DEFAULT_POOL, *await self._store.pool_names()}:
                    await self._store.redis.zrem(self._store.pool(pool).keys.balancers(), self.balancer_id)
                await self._tally.flush_once()

    def stop_accepting(self) -> None:
        """Refuse new requests and tell the clients of open ones."""
        self._is_closing = True
        for mailbox in self._inbox.mailboxes():
            mailbox.fail(ShuttingDown(STOPPING, retry_after_s=1))
        self.stopping.set()

    def supervise(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a loop until `close`; if it fails, so does this gateway."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a loop of the balancer failed", exc_info=error)
            self.failed.set()

    async def submit(self, pool: str, payload: Payload, how: Submit | None = None) -> Reply:
        """Steps 1 and 2. Raises `BufferFull`, `TenantBufferFull`, `IdempotencyMismatch`, `QueueUnavailable`,
        `InvalidField` for what no agent of the pool can do, `EmbeddingsOff`, and what `Meter.reserve` raises."""
        how = how or Submit()
        if how.may_come_back and not how.can_be_resumed:
            raise InvalidField(
                "`X-On-Disconnect: wait` is for one request that can be followed again: leave it out with several "
                "choices or inputs, or send an `Idempotency-Key` where that is taken.",
                param="X-On-Disconnect",
            )
        if not self._meters:
            return await self._submit(pool, payload, how)
        measuring = Measuring(measured_of(pool, payload, how, self._clock.monotonic()), self._meters)
        try:
            traced = msgspec.structs.replace(how, traceparent=measuring.measured.traceparent)
            return measuring.accepted(await self._submit(pool, payload, traced))
        except BaseException as error:
            measuring.refused(error)
            raise

    async def _submit(self, pool: str, payload: Payload, how: Submit) -> Reply:
        await self._ready(pool)
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                view = await self._views.pool(pool)
                desired = await self.desired.pool(pool)
            if isinstance(payload, Embed) and not desired.state.inference_parameters.enable_embeddings:
                raise EmbeddingsOff(
                    f"Embeddings are switched off: the desired state of pool '{pool}' has `enable_embeddings` false."
                )
            payload = filled(payload, desired.sampling)
            if self._is_closing:
                raise ShuttingDown(STOPPING, retry_after_s=1)
            view.check_able(payload)
            submission = self._submission(pool, payload, how, view)
            reserved = NOTHING if how.account is None else await self._reserve(submission, how, how.account)
            mailbox = self._inbox.open(
                submission.request_id, start_timeout_ms=submission.start_timeout_ms, submission=submission
            )
            mailbox.can_be_resumed, mailbox.may_come_back = how.can_be_resumed, how.may_come_back
            try:
                async with asyncio.timeout(REDIS_PATIENCE_S):
                    submitted = await self._submit_patiently(pool, submission)
            except BaseException:
                # It may have run although its answer was lost, or run yet. Its client can come back only by its key.
                self._leave(mailbox, is_unsure=True, may_come_back=bool(submission.idempotency_key))
                raise
        except TROUBLE as error:
            log.warning("submit failed", pool=pool, error=str(error))
            self._tally.count(pool, "unavailable")
            if isinstance(error, OutOfMemoryError):
                raise QueueUnavailable("Redis is full: it has reached its maxmemory.", retry_after_s=1) from error
            raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error
        if submitted.admission is Admission.KNOWN and how.request_id:
            reserved.refused()
            self._inbox.close(mailbox)
            return await self.follow(how.request_id)
        if submitted.admission in (Admission.ASSIGNED, Admission.WAITING, Admission.KNOWN):
            reserved.submitted()
            position = submitted.number if submitted.admission is Admission.WAITING else None
            num_own = await num_waiting_of_tenant(self._store, pool, submission)
            standing = standing_of(submission, submitted, view, num_own)
            reply = Reply(mailbox, self._leave, label=how.label, position=position, standing=standing)
            reply.when_ended = reserved.ended
            return reply
        reserved.refused()
        self._inbox.close(mailbox)
        if submitted.admission is Admission.DUPLICATE:
            try:
                return await self.follow(submitted.request_id, may_come_back=how.may_come_back)
            except RequestNotFound:
                raise RequestLost("the request of this idempotency key has just been forgotten; try again.") from None
        raise await self._refusal(pool, submitted, view, submission.side)

    async def follow(self, request_id: str, *, offset: int = 0, may_come_back: bool = False) -> Reply:
        """Follow a request that may have been submitted anywhere, from a journal offset on; `may_come_back` as in
        `Submit`.

        Raises `RequestNotFound` when nobody knows it (any more), `RequestLost` when Redis has forgotten what was before
        the offset, `QueueUnavailable`, and `ValueError` for what is no request id."""
        pool = self._store.pool(pool_of(request_id))
        await self._ready(pool.keys.pool)
        mailbox = self._inbox.open(request_id, offset=offset)
        mailbox.may_come_back = may_come_back
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                # The whole journal: only so an offset can be told from one of a journal that Redis has lost.
                attached = await pool.attach(request_id, self._inbox.channel, 0)
                label = await pool.redis.hget(pool.keys.request(request_id), "label")
            if attached.state is None:
                raise not_found(request_id)
            earlier = frames_before(offset, attached.journal)
        except TROUBLE as error:
            self._leave(mailbox, may_come_back=True)
            self._tally.count(pool.keys.pool, "unavailable")
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error
        except BaseException as error:
            mailbox.error = error if isinstance(error, RequestLost) else None
            self._leave(mailbox)
            raise
        if offset:
            self._tally.count(pool.keys.pool, "resumed")
        mailbox.feed(0, attached.journal, self._clock.monotonic())
        is_over = attached.state in ENDED and offset == len(attached.journal)
        mailbox.is_ended = is_over
        return Reply(mailbox, self._leave, label=label or b"", offset=offset, earlier=earlier, is_over=is_over)

    async def status(self, request_id: str) -> RequestStatus:
        """Raises `RequestNotFound`, `QueueUnavailable`, `ValueError` for what is no request id."""
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                return await read_status(self._store, self._views, self._clock, request_id)
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error

    async def position(self, request_id: str) -> Place | None:
        """The place of a request that waits; None when it does not, or Redis does not tell within a second."""
        with contextlib.suppress(PaddlerError, *TROUBLE):
            async with asyncio.timeout(1.0):
                status = await self.status(request_id)
                return None if status.position is None else Place(status.position, status.estimated_wait_ms)
        return None

    async def cancel(self, request_id: str) -> None:
        """Stop a request wherever it is (step 9); one that has ended stays as it is. Raises as `status`."""
        pool = self._store.pool(pool_of(request_id))
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                outcome = await pool.cancel(request_id, CANCELLED_FRAME)
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached or refuses writes.", retry_after_s=1) from error
        if outcome is Cancelled.GONE:
            raise not_found(request_id)

    async def view(self, pool: str) -> PoolView:
        """The pool's agents and its queue, as known a second or two ago. Raises `QueueUnavailable`."""
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                return await self._views.pool(pool)
        except TROUBLE as error:
            raise QueueUnavailable("Redis cannot be reached.", retry_after_s=1) from error

    async def num_slots(self, pool: str) -> int:
        """Slots of the pool's agents. Raises as `view`."""
        return (await self.view(pool)).slots_total

    async def abilities(self, pool: str) -> frozenset[str] | None:
        """What the pool's agents can do; None while nobody knows. Raises as `view`."""
        return (await self.view(pool)).abilities

    @property
    def item_timeout_ms(self) -> int:
        """For how long an agent may be silent."""
        return self._settings.inference_item_timeout_ms

    @property
    def store(self) -> Store:
        return self._store

    async def health(self) -> bool:
        """Is Redis there?"""
        return self._inbox.is_subscribed()

    async def resolve(self, model: str) -> str:
        """The pool that serves `model`, by pool or model name. Raises `ModelNotFound` or `QueueUnavailable`."""
        return await self._models.resolve(model)

    async def models(self) -> list[PoolModel]:
        """Pool names and the models their agents serve. Raises `QueueUnavailable`."""
        return await self._models.list()

    async def _ready(self, pool: str) -> None:
        if self._is_closing:
            raise ShuttingDown(STOPPING, retry_after_s=1)
        try:
            await self._inbox.wait_subscribed(SUBSCRIBE_TIMEOUT_S)
        except QueueUnavailable:
            self._tally.count(pool, "unavailable")
            raise

    async def _submit_patiently(self, pool: str, submission: Submission) -> Submitted:
        """A full Redis may have room again in a moment, when something else has ended."""
        for wait_s in FULL_WAITS_S:
            with contextlib.suppress(OutOfMemoryError):
                return await self._store.pool(pool).submit(submission)
            await self._clock.sleep(wait_s * (1 + random.random()))
        return await self._store.pool(pool).submit(submission)

    def _submission(self, pool: str, payload: Payload, how: Submit, view: PoolView) -> Submission:
        settings = self._settings
        if isinstance(payload, Generate) and not settings.shares_prefix_cache:
            payload = msgspec.structs.replace(payload, cache_scope=how.tenant)
        if how.traceparent and isinstance(payload, Generate | Embed | Rerank):
            payload = msgspec.structs.replace(payload, traceparent=how.traceparent)
        chain = chain_of(payload, pool)
        is_batch = how.request_class == "batch" or how.is_background
        max_waiting = settings.max_batch_requests if is_batch else settings.max_buffered_requests
        timeout_ms = how.start_timeout_ms
        if timeout_ms is None:
            timeout_ms = 0 if is_batch else max(1, settings.buffered_request_timeout_ms)
        return Submission(
            request_id=how.request_id or new_request_id(pool),
            request_class=how.request_class,
            tenant=how.tenant,
            payload=encode_payload(payload),
            inbox=self._inbox.channel,
            start_timeout_ms=timeout_ms,
            max_waiting=max_waiting,
            chain=pack_chain(chain, view.bytes_per_token),
            prompt_tokens=estimate_tokens(chain.num_bytes, view.bytes_per_token),
            output_tokens=expected_output(payload),
            weight=how.weight,
            hint=how.hint,
            tenant_max_waiting=tenant_max(max_waiting, settings.tenant_share),
            rate=view.rate,
            max_wait_ms=0 if is_batch else settings.max_estimated_wait_ms,
            is_background=how.is_background,
            # A digest: of bounded length, and nothing of a client's secrets in the name of a key.
            idempotency_key=how.idempotency_key and hashlib.sha256(how.idempotency_key.encode()).hexdigest()[:32],
            fingerprint=how.fingerprint,
            label=how.label,
            api_key=how.account.key.id if how.account is not None else "",
        )

    async def _reserve(self, submission: Submission, how: Submit, account: Account) -> Reservation:
        tokens = submission.prompt_tokens + submission.output_tokens
        request_id, is_batch = submission.request_id, bool(how.request_id)
        async with asyncio.timeout(REDIS_PATIENCE_S):
            return await self._meter.reserve(
                account, request_id, tokens=tokens, num_parts=how.num_parts, is_batch=is_batch
            )

    async def _refusal(self, pool: str, submitted: Submitted, view: PoolView, side: str) -> PaddlerError:
        if submitted.admission is Admission.MISMATCH:
            return IdempotencyMismatch(
                "this Idempotency-Key was used for a request with another body; use a new key for a new request.",
                param="Idempotency-Key",
            )
        if submitted.admission is Admission.OUTDATED:
            return QueueUnavailable("this balancer is of a version that may not work here any more.", retry_after_s=1)
        seconds = await self._retry_after(pool, view, side)
        match submitted.admission:
            case Admission.TENANT_FULL:
                return TenantBufferFull(
                    f"{submitted.number} of your requests wait already, as many as your share of the buffer allows.",
                    retry_after_s=seconds,
                    limit=submitted.number,
                )
            case Admission.SLOW:
                limit = None
                message = f"a request would wait about {submitted.number} ms, longer than --max-estimated-wait allows."
            case _:
                option = "--max-batch-requests" if side == "background" else "--max-buffered-requests"
                limit = submitted.number
                message = f"{limit} requests wait already, as many as {option} allows."
        return BufferFull(message, retry_after_s=seconds, limit=limit)

    async def _retry_after(self, pool: str, view: PoolView, side: str) -> int:
        """Seconds until what waits on this side has been computed at the measured rate; the start timeout when nobody
        measured."""
        backlog = 0
        with contextlib.suppress(*TROUBLE):
            backlog = int(await self._store.redis.get(self._store.pool(pool).keys.backlog(side)) or 0)
        wait_ms = backlog * 1000 / view.rate if view.rate else self._settings.buffered_request_timeout_ms
        return retry_after_s(math.ceil(wait_ms))

    def _leave(self, mailbox: Mailbox, *, is_unsure: bool = False, may_come_back: bool = False) -> None:
        """Nobody reads this mailbox any more; an unfinished request that nobody else follows is cancelled, unless its
        client was told to try again, here or at another balancer."""
        is_last = self._inbox.close(mailbox)
        if mailbox.is_ended:
            return
        mailbox.is_ended = True
        if (what := COUNTED_ENDS.get(type(mailbox.error))) is not None:
            self._tally.count(pool_of(mailbox.request_id), what)
        is_sent_on = isinstance(mailbox.error, ShuttingDown) and not self._settings.cancel_on_stop
        is_sent_on = is_sent_on and mailbox.can_be_resumed
        if is_last and not (is_sent_on and not is_unsure):
            may_come_back = may_come_back or (mailbox.may_come_back and mailbox.error is None)
            may_come_back = may_come_back or (mailbox.can_be_resumed and isinstance(mailbox.error, QueueUnavailable))
            self._leaving.leave(mailbox.request_id, is_unsure=is_unsure, may_come_back=may_come_back)

    async def _tally_loop(self) -> None:
        while True:
            await self._clock.sleep(TALLY_S)
            with contextlib.suppress(*TROUBLE):
                await self._tally.flush_once()

    async def _follow_loop(self) -> None:
        """Prolong this balancer's lease in every pool, so that its requests are no orphans (step 13)."""
        while True:
            with contextlib.suppress(*TROUBLE):
                for pool in {DEFAULT_POOL, *await self._store.pool_names()}:
                    await self._store.pool(pool).follow(self.balancer_id, lease_ms=FOLLOW_LEASE_MS)
            await self._clock.sleep(FOLLOW_LEASE_MS / 4000)
