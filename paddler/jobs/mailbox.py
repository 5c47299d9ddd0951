"""The receiving end of one request (life of a request, step 8): pure, time is an argument.

A mailbox accepts frames only at its own next journal offset, drops bytes it already has, and reports a gap.
It holds at most `MAX_PENDING` bytes for a slow reader; what it refuses stays in the journal and is read
from there when the reader has caught up. The last `MAX_TAIL` bytes are kept: a Redis that crashed may have forgotten
what was already forwarded, and gets it back (step 12). Should the journal have gone on in another way by then, the
stream ends with an error rather than with a token twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto

import msgspec

from paddler.errors import PaddlerError, RequestLost
from paddler.store.results import Submission
from paddler.wire.balancer import Failed, Finished, Frame, decode_frames, decode_placed

MAX_PENDING = 1 << 20
MAX_TAIL = 1 << 18

ENDS = (Finished, Failed)

FIRST_CHECK_S = 1.0
MAX_CHECK_S = 8.0


class Fed(Enum):
    ACCEPTED = auto()
    REPEATED = auto()
    GAP = auto()
    DIVERGED = auto()


class Mailbox:
    """Frames of one request on their way to its client; one reader."""

    def __init__(
        self,
        request_id: str,
        *,
        now: float,
        start_deadline: float | None,
        offset: int = 0,
        submission: Submission | None = None,
    ) -> None:
        self.request_id = request_id
        self.submission = submission
        self.offset = offset
        self._tail = bytearray()
        self.start_deadline = start_deadline
        self.must_verify = False
        self.is_opened = False
        self.can_be_resumed = True
        self.may_come_back = False
        self.is_ended = False
        self.error: PaddlerError | None = None
        self.last_heard = now
        self.opened_at: float | None = None
        """When its first frame came."""
        self.fed_at = now
        """When its last one did."""
        self.next_check = now + FIRST_CHECK_S
        self._check_interval = FIRST_CHECK_S
        self._pending: deque[bytes] = deque()
        self._num_pending = 0
        self._changed = asyncio.Event()

    def feed(self, offset: int, frames: bytes, now: float) -> Fed:
        """Take whole frames that start at journal byte `offset`."""
        end = offset + len(frames)
        if offset != self.offset and not self._agrees(offset, frames):
            self.fail(RequestLost("Redis lost a part of this request that was already sent; send the request again."))
            return Fed.DIVERGED
        if end <= self.offset:
            return Fed.REPEATED
        if offset > self.offset or self._num_pending > MAX_PENDING:
            # Nothing is lost: the journal has it, and the next check reads it.
            self.next_check = now
            return Fed.GAP
        news = frames if offset == self.offset else frames[self.offset - offset :]
        self._pending.append(news)
        self._tail += news
        del self._tail[:-MAX_TAIL]
        self._num_pending += end - self.offset
        self.offset = end
        if not self.is_opened:
            self.is_opened = True
            self.opened_at = now
        self.last_heard = self.fed_at = now
        self._check_interval = FIRST_CHECK_S
        self.next_check = now + FIRST_CHECK_S
        self._changed.set()
        return Fed.ACCEPTED

    @property
    def tail_offset(self) -> int:
        """The journal offset from which on the bytes are at hand."""
        return self.offset - len(self._tail)

    def _agrees(self, offset: int, frames: bytes) -> bool:
        """Whether these bytes are those that were received, as far as they are known."""
        first = self.tail_offset
        start, end = max(offset, first), min(offset + len(frames), self.offset)
        return start >= end or bytes(self._tail[start - first : end - first]) == frames[start - offset : end - offset]

    def since(self, offset: int) -> bytes | None:
        """The bytes from a journal offset on, to write them back to a Redis that forgot them; None when they are
        no longer at hand."""
        first = self.tail_offset
        return bytes(self._tail[offset - first :]) if first <= offset <= self.offset else None

    def fail(self, error: PaddlerError) -> None:
        """End the request from this side; frames already received are still read first."""
        if not self.is_ended:
            self.error = self.error or error
            self._changed.set()

    def checked(self, now: float) -> None:
        """Redis was asked and had nothing new: ask again later, less often while nothing happens."""
        self._check_interval = min(self._check_interval * 2, MAX_CHECK_S)
        self.next_check = now + self._check_interval

    def is_check_due(self, now: float) -> bool:
        return not self.is_ended and self.error is None and now >= self.next_check and self._num_pending <= MAX_PENDING

    def is_silent(self, now: float, timeout_s: float) -> bool:
        """Nothing came for so long since an agent began it, though there is a reader for it."""
        is_open = self.is_opened and not self.is_ended and self.error is None
        return is_open and now - self.last_heard > timeout_s and self._num_pending <= MAX_PENDING

    async def wait(self) -> None:
        """Until there is something to read."""
        await self._changed.wait()

    def take(self) -> list[Frame]:
        """All frames received since the last call. Raises the error `fail` was given once nothing is left."""
        return [frame for frame, _ in self.take_placed()]

    def take_placed(self) -> list[tuple[Frame, int]]:
        """As `take`, each frame with the journal offset behind it."""
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending.clear()
        self._num_pending = 0
        try:
            frames = list(decode_placed(data, self.offset - len(data)))
        except (ValueError, msgspec.MsgspecError):
            # A follower that began within a frame: the journal it began with was another one.
            self.error = RequestLost("the journal of this request cannot be read from here on.")
            raise self.error from None
        if frames and isinstance(frames[-1][0], ENDS):
            self.is_ended = True
        if not frames and self.error is not None:
            raise self.error
        if self.error is None:
            self._changed.clear()
        return frames

    def first_failure(self) -> Failed | None:
        """The failure, when that is the first frame to read; nothing is consumed."""
        first = next(decode_frames(self._pending[0]), None) if self._pending else None
        return first if isinstance(first, Failed) else None
