"""One balancer's inbox: the subscription that brings frames, and the sweep that mends what it missed.

Pub/sub may lose any message, the last one included. So after every reconnect, and for every request that
has been silent for a while, state and journal length are compared with what was forwarded, and the rest is
read from the journal (life of a request, step 8).
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any, NoReturn

from msgspec import structs

from paddler.clock import Clock
from paddler.errors import ItemTimeout, QueueUnavailable, RequestLost
from paddler.ids import pool_of
from paddler.jobs.endings import START_TIMEOUT_FRAME
from paddler.jobs.mailbox import Fed, Mailbox
from paddler.logs import get_logger
from paddler.store.client import TROUBLE, Store, is_refusal
from paddler.store.keys import inbox_channel
from paddler.store.remedies import remedy_for
from paddler.store.results import Admission, Repair, Submission
from paddler.store.tally import Tally
from paddler.wire.balancer import decode_delivery

log = get_logger(__name__)

SWEEP_S = 0.1
RECONNECT_S = 0.1
MAX_RECONNECT_S = 1.0
OUTAGE_GRACE_S = 5.0
PATIENCE_S = 5.0
FORGETFUL_S = 5.0


class Inbox:
    """The mailboxes of one balancer process, fed by one subscription."""

    def __init__(self, store: Store, clock: Clock, balancer_id: str, tally: Tally, *, item_timeout_ms: int) -> None:
        self._store = store
        self._tally = tally
        self._clock = clock
        self._item_timeout_ms = item_timeout_ms
        self._item_timeout_s = item_timeout_ms / 1000
        self._mailboxes: dict[str, list[Mailbox]] = {}
        self._subscribed = asyncio.Event()
        self._away_since: float | None = None
        self._left: deque[tuple[float, str]] = deque()
        self.forgotten: asyncio.Queue[str] = asyncio.Queue()
        self.channel = inbox_channel(store.prefix, balancer_id)

    async def wait_subscribed(self, timeout_s: float) -> None:
        """Before anything is submitted the subscription is confirmed. Raises `QueueUnavailable`."""
        if self._subscribed.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._subscribed.wait()
        except TimeoutError:
            raise QueueUnavailable(
                "Redis cannot be reached from this balancer; see its log.", retry_after_s=1
            ) from None

    def is_subscribed(self) -> bool:
        return self._subscribed.is_set()

    def open(
        self, request_id: str, *, start_timeout_ms: int = 0, offset: int = 0, submission: Submission | None = None
    ) -> Mailbox:
        """A mailbox that is fed from now on; several may follow one request."""
        now = self._clock.monotonic()
        deadline = now + start_timeout_ms / 1000 if start_timeout_ms else None
        mailbox = Mailbox(request_id, now=now, start_deadline=deadline, offset=offset, submission=submission)
        self._mailboxes.setdefault(request_id, []).append(mailbox)
        return mailbox

    def is_open(self, request_id: str) -> bool:
        return request_id in self._mailboxes

    def close(self, mailbox: Mailbox) -> bool:
        """Stop feeding a mailbox. Was it the last one for its request?"""
        now = self._clock.monotonic()
        self._left.append((now, mailbox.request_id))
        while self._left[0][0] < now - FORGETFUL_S:
            self._left.popleft()
        boxes = self._mailboxes.get(mailbox.request_id, [])
        if mailbox in boxes:
            boxes.remove(mailbox)
        if not boxes:
            self._mailboxes.pop(mailbox.request_id, None)
        return not boxes

    def mailboxes(self) -> list[Mailbox]:
        return [mailbox for boxes in self._mailboxes.values() for mailbox in boxes]

    async def subscribe_loop(self) -> None:
        """Receive for ever; reconnects by itself."""
        delay = RECONNECT_S
        while True:
            try:
                await self._receive()
            except TROUBLE as error:
                if self._subscribed.is_set():
                    delay = RECONNECT_S
                log.warning("no subscription to Redis, trying again", error=str(error), remedy=remedy_for(error))
                self._subscribed.clear()
                self._is_away(self._clock.monotonic())
            await self._clock.sleep(delay)
            delay = min(delay * 2, MAX_RECONNECT_S)

    async def _receive(self) -> NoReturn:
        await self._store.listen(self.channel, on_subscribed=self._subscribed_again, on_message=self._deliver)

    def _subscribed_again(self) -> None:
        """Whatever was published while nobody listened is in the journals. Redis may have crashed meanwhile: what was
        forwarded is compared with them, and what ended just before it may have forgotten, so it is told again."""
        self._subscribed.set()
        self._away_since = None
        now = self._clock.monotonic()
        for mailbox in self.mailboxes():
            mailbox.next_check = now
            # Its agent could not say anything either.
            mailbox.last_heard = now
            mailbox.must_verify = True
        for _, request_id in self._left:
            self.forgotten.put_nowait(request_id)
        self._left.clear()

    def _deliver(self, data: bytes) -> None:
        try:
            delivery = decode_delivery(data)
        except (struct.error, ValueError) as error:
            # From a newer version, most likely; what it says of our requests is in their journals.
            log.warning("skipped a delivery that this version cannot read", error=str(error))
            return
        now = self._clock.monotonic()
        for mailbox in self._mailboxes.get(delivery.request_id, ()):
            if mailbox.feed(delivery.offset, delivery.frames, now) is Fed.GAP:
                log.debug("gap in a stream, reading the journal", request=delivery.request_id)

    def _is_away(self, since: float) -> None:
        if self._away_since is None:
            self._away_since = since

    async def sweep_loop(self) -> None:
        while True:
            began = self._clock.monotonic()
            try:
                await self.run_sweep_once()
            except TROUBLE as error:
                # A Redis that hangs keeps its subscriptions.
                if not is_refusal(error):
                    self._is_away(began)
                log.debug("sweep failed, trying again", error=str(error))
            await self._clock.sleep(SWEEP_S)

    async def run_sweep_once(self) -> None:
        """Mend gaps, time out the silent, expire what waited too long, end what Redis has been away for too long for.

        Raises what Redis raises."""
        now = self._clock.monotonic()
        late_pools: set[str] = set()
        for mailbox in self.mailboxes():
            if mailbox.start_deadline is not None and not mailbox.is_opened and now >= mailbox.start_deadline:
                late_pools.add(pool_of(mailbox.request_id))
            if self._is_away_too_long(mailbox, now):
                mailbox.fail(
                    QueueUnavailable("Redis could not be reached while the request was in the queue.", retry_after_s=1)
                )
        due = [
            mailbox
            for mailbox in self.mailboxes()
            if mailbox.is_check_due(now) or mailbox.is_silent(now, self._item_timeout_s)
        ]
        if not self._subscribed.is_set():
            return
        async with asyncio.timeout(PATIENCE_S):
            for pool in late_pools:
                await self._store.pool(pool).expire(START_TIMEOUT_FRAME)
        if due:
            await self._check(due)
        if due or late_pools:
            self._away_since = None

    def _is_away_too_long(self, mailbox: Mailbox, now: float) -> bool:
        """One that waits has its deadline and some seconds, any other has the item timeout, also one of class batch
        that has no deadline."""
        if self._away_since is None:
            return False
        if mailbox.start_deadline is None or mailbox.is_opened:
            return now - self._away_since > self._item_timeout_s
        return now >= mailbox.start_deadline + OUTAGE_GRACE_S

    async def _check(self, due: list[Mailbox]) -> None:
        pipe = self._store.redis.pipeline(transaction=False)
        for mailbox in due:
            keys = self._store.pool(pool_of(mailbox.request_id)).keys
            pipe.hget(keys.request(mailbox.request_id), "state")
            pipe.strlen(keys.journal(mailbox.request_id))
        # With its own retries it would take a minute to find that Redis hangs, and nobody would be timed out meanwhile.
        async with asyncio.timeout(PATIENCE_S):
            answers: list[Any] = await pipe.execute()
        now = self._clock.monotonic()
        for mailbox, state, length in zip(due, answers[::2], answers[1::2], strict=True):
            if state is not None and length == mailbox.offset and not mailbox.must_verify:
                self._nothing_new(mailbox, state, now)
            elif not await self._catch_up(mailbox, state, length):
                mailbox.fail(RequestLost("Redis lost this request; send it again."))

    def _nothing_new(self, mailbox: Mailbox, state: bytes, now: float) -> None:
        if state in (b"waiting", b"assigned"):
            # It was handed over or preempted and has no agent that could be silent.
            mailbox.last_heard = now
        elif state == b"running" and mailbox.is_silent(now, self._item_timeout_s):
            mailbox.fail(
                ItemTimeout(
                    f"no token for {self._item_timeout_ms} ms. Raise --inference-item-timeout if the prompt "
                    "takes longer to process."
                )
            )
        mailbox.checked(now)

    async def _catch_up(self, mailbox: Mailbox, state: bytes | None, length: int) -> bool:
        """Read what is new; after an outage compare what is old with it (step 12). False: it cannot be mended."""
        if state is not None:
            pool = self._store.pool(pool_of(mailbox.request_id))
            start = mailbox.tail_offset if mailbox.must_verify or length < mailbox.offset else mailbox.offset
            attached = await pool.attach(mailbox.request_id, self.channel, start)
            fed = mailbox.feed(start, attached.journal, self._clock.monotonic())
            if fed is Fed.ACCEPTED:
                self._tally.count(pool.keys.pool, "mended_gaps")
            if fed is Fed.DIVERGED:
                return True  # it has failed with that
            mailbox.must_verify = False
            length = max(length, start + len(attached.journal))
            if length >= mailbox.offset:
                if fed is Fed.REPEATED:
                    mailbox.checked(self._clock.monotonic())
                return True
        if not await self._mend(mailbox, state, length):
            return False
        mailbox.must_verify = False
        mailbox.checked(self._clock.monotonic())
        return True

    async def _mend(self, mailbox: Mailbox, state: bytes | None, length: int) -> bool:
        """Step 12: Redis crashed and forgot. Give it back what was already forwarded, and the request if need be."""
        pool = self._store.pool(pool_of(mailbox.request_id))
        forgotten = mailbox.since(0 if state is None else length)
        if forgotten is None or state in (b"done", b"failed", b"cancelled"):
            return False
        if state is None:
            if mailbox.submission is None:
                return False
            submitted = await pool.submit(_again(mailbox.submission, forgotten))
            self._tally.count(pool.keys.pool, "resubmitted")
            log.warning("Redis forgot a request, submitted it again", request=mailbox.request_id)
            if not self.is_open(mailbox.request_id):
                # Its client left meanwhile, and that may have been told before Redis knew the request again.
                self.forgotten.put_nowait(mailbox.request_id)
            return submitted.admission in (Admission.ASSIGNED, Admission.WAITING, Admission.KNOWN)
        repaired, found = await pool.repair(mailbox.request_id, length, forgotten)
        # It may have gone on, and even ended, since its length was read: nothing is lost then.
        return repaired in (Repair.OK, Repair.MOVED) or (repaired is Repair.ENDED and found >= mailbox.offset)


def _again(submission: Submission, journal: bytes) -> Submission:
    """It was accepted before, so no bound applies; one that has begun has no start deadline either."""
    return structs.replace(
        submission,
        journal=journal,
        start_timeout_ms=0 if journal else submission.start_timeout_ms,
        max_waiting=2**31,
        tenant_max_waiting=0,
        max_wait_ms=0,
    )
