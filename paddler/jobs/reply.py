"""One request, seen from the balancer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from msgspec import Struct

from paddler.errors import RequestLost, error_of
from paddler.jobs.mailbox import Mailbox
from paddler.jobs.standing import Standing
from paddler.wire.balancer import (
    Answered,
    Failed,
    Finished,
    FinishReason,
    Frame,
    Opened,
    Prefilled,
    TextFormat,
    Tokens,
    Usage,
    Vectors,
    decode_placed,
)

HIT_SHARE = 0.9


def cache_word(prompt_tokens: int, cached_tokens: int) -> str:
    """`hit`: nine tenths of the prompt or more were in the agent's KV cache; `partial`: some of it; `miss`."""
    if cached_tokens >= HIT_SHARE * prompt_tokens:
        return "hit"
    return "partial" if cached_tokens else "miss"


class Route(Struct):
    """Which way a request has gone so far; None is not known (yet)."""

    agent_name: str | None = None
    attempt: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    format: TextFormat | None = None
    """Of the text, if it is not content alone; the first agent's, as the text goes on."""
    stop: str | None = None
    """The stop string at which it has ended."""
    num_tokens: int = 0
    """So far."""

    def note(self, frame: Frame) -> None:
        match frame:
            case Opened(agent_name, attempt):
                self.agent_name, self.attempt = agent_name, attempt
                self.prompt_tokens = self.cached_tokens = None
            case Prefilled(prompt_tokens, cached_tokens, format):
                self.prompt_tokens, self.cached_tokens = prompt_tokens, cached_tokens
                self.format = self.format or format
            case Finished(usage=usage, stop=stop):
                self.prompt_tokens, self.cached_tokens = usage.prompt_tokens, usage.cached_tokens
                self.stop = stop
            case Tokens(ids):
                self.num_tokens += len(ids)
            case Vectors() | Answered() | Failed():
                pass

    @property
    def cache(self) -> str | None:
        """As `cache_word`; None while it is not known."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return cache_word(self.prompt_tokens, self.cached_tokens)


class Reply:
    """Leaving the context before the terminal frame cancels the request, unless it is a background request or somebody
    else follows it too.

    `label` is what the request was submitted with, `offset` the journal offset behind the frame read last, and
    `position` how many requests were to be served before it when it was submitted, if it had to wait; `standing` is
    what admission then knew, None of one that is followed again."""

    def __init__(
        self,
        mailbox: Mailbox,
        leave: Callable[[Mailbox], None],
        *,
        label: bytes = b"",
        offset: int = 0,
        earlier: Iterable[Frame] = (),
        position: int | None = None,
        standing: Standing | None = None,
        is_over: bool = False,
    ) -> None:
        """`earlier` are the frames before `offset`. `is_over`: there is nothing behind it."""
        self._mailbox = mailbox
        self._leave = leave
        self.when_ended: Callable[[Usage | None], None] | None = None
        """Hears of the end before anybody else, with what was used where that is known."""
        self.is_over = is_over
        """There is nothing behind `offset`."""
        self.request_id = mailbox.request_id
        self.label = label
        self.offset = offset
        self.position = position
        self.standing = standing
        self.route = Route()
        self.has_failed = False
        """It has ended with an error that its journal tells, not one of this balancer's."""
        self.reason: FinishReason | None = None
        """Why it has finished."""
        self.came: Callable[[int, float], None] | None = None
        """Told how many tokens have come, and when, before they are read."""
        self.left: Callable[[Reply, BaseException | None], None] | None = None
        """Told when the context is left."""
        had: list[Tokens] = []
        for frame in earlier:
            self.route.note(frame)
            if isinstance(frame, Tokens):
                had.append(frame)
        self.earlier = tuple(had)
        """What of the answer is before `offset`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self._mailbox)
        if self.left is not None:
            self.left(self, error)

    @property
    def opened_at(self) -> float | None:
        """When its first frame came, by `Clock.monotonic`."""
        return self._mailbox.opened_at

    @property
    def heard_at(self) -> float:
        """When its last one did."""
        return self._mailbox.fed_at

    async def __aiter__(self) -> AsyncIterator[Opened | Tokens | Vectors | Answered | Finished]:
        """Every frame in order, ending after `Finished`. Raises a `PaddlerError` for any other end.

        Ends at once when it is followed from behind its last frame."""
        while not self.is_over:
            await self.wait()
            for frame in self.read():
                yield frame

    async def wait(self) -> None:
        """Until `read` has something."""
        await self._mailbox.wait()

    def read(self) -> Iterator[Opened | Tokens | Vectors | Answered | Finished]:
        """The frames that have come, each noted when it is read; raises as iterating does."""
        placed = self._mailbox.take_placed()
        if self.came is not None:
            num_tokens = sum([len(frame.ids) for frame, _ in placed if isinstance(frame, Tokens)])
            if num_tokens:
                self.came(num_tokens, self._mailbox.fed_at)
        for frame, end in placed:
            self.offset = end
            self.route.note(frame)
            match frame:
                case Failed():
                    self.has_failed = True
                    self._tell_ended(None)
                    raise error_of(frame)
                case Finished():
                    self.is_over = True
                    self._tell_ended(frame.usage)
                    self.reason = frame.reason
                    yield frame
                    return
                case Prefilled():
                    pass
                case _:
                    yield frame

    def _tell_ended(self, usage: Usage | None) -> None:
        if self.when_ended is not None:
            self.when_ended(usage)

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


def frames_before(offset: int, journal: bytes) -> list[Frame]:
    """The frames before a journal offset. Raises `RequestLost` when it is not where a frame of this journal ends."""
    frames: list[Frame] = []
    end = 0
    for frame, behind in decode_placed(journal, 0):
        if end >= offset:
            break
        frames.append(frame)
        end = behind
    if end != offset:
        raise RequestLost("this request has no such place to go on from; Redis may have lost its end.", retry_after_s=1)
    return frames
