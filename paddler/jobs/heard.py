"""What a request has said, from its first frame to its last: for whoever renders it only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, assert_never

from msgspec import Struct

from paddler.errors import RequestCancelled, RequestLost
from paddler.jobs.reply import Reply
from paddler.wire.balancer import Answered, Finished, FinishReason, Opened, Tokens, Vectors


class Heard(Protocol):
    """`end` is None until it has finished."""

    @property
    def reply(self) -> Reply: ...
    @property
    def tokens(self) -> Sequence[Tokens]: ...
    @property
    def vectors(self) -> Sequence[bytes]: ...
    @property
    def end(self) -> Finished | None: ...


class Answer(Struct, frozen=True):
    """A request that has finished."""

    reply: Reply
    tokens: list[Tokens]
    vectors: list[bytes]
    end: Finished


async def hear(reply: Reply) -> Answer:
    """Read a request to its end. Raises what it ended with, `RequestCancelled` and `RequestLost` among it."""
    tokens: list[Tokens] = []
    vectors: list[bytes] = []
    async for frame in reply:
        match frame:
            case Tokens():
                tokens.append(frame)
            case Vectors():
                vectors += frame.vectors
            case Opened() | Answered():
                pass
            case Finished():
                if frame.reason is FinishReason.CANCELLED:
                    raise RequestCancelled("The request was cancelled.")
                return Answer(reply, tokens, vectors, frame)
            case _:
                assert_never(frame)
    raise RequestLost("Redis lost this request's answer; send it again.")
