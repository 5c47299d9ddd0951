"""What is known of one request of a benchmark."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Left on purpose, by `--cancel-rate`."""
    UNFINISHED = "unfinished"
    """It was still going on when the benchmark was stopped."""


class Kind(StrEnum):
    """How a request failed. An HTTP status is a kind of its own: `status 503`."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    IN_STREAM = "error in stream"
    """The server said 200 and told of an error later."""
    BROKEN = "broken answer"
    """What came is no whole answer of this protocol."""


class Failure(Exception):
    """Why a request failed; `kind` is counted, the message an example of it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Sample(Struct):
    """Times are seconds since the start of the run, None until they are known. `scheduled_s` is when the request was
    due, and latencies count from there: what a busy generator adds is not hidden (coordinated omission). `num_chunks`
    are events with text, `gaps_s` the times between two of them, and `last_s` is when the last came.

    Token counts are those of `usage`, else (`has_usage` false) one for each chunk, and nothing is known of the prompt.
    `cached_tokens` is None where the server does not tell. `is_left`: its client was to go away, and did unless it
    ended before."""

    conversation: int
    turn: int
    scheduled_s: float
    sent_s: float
    first_s: float | None = None
    last_s: float | None = None
    end_s: float | None = None
    outcome: Outcome = Outcome.UNFINISHED
    error: str = ""
    message: str = ""
    num_chunks: int = 0
    gaps_s: list[float] = field(default_factory=list[float])
    has_usage: bool = False
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    is_left: bool = False

    @property
    def is_ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def is_timed(self) -> bool:
        """Its times count. Of those that are left only the quick ones end, and would make all look quicker."""
        return self.is_ok and not self.is_left

    @property
    def ttft_s(self) -> float | None:
        """To the first text, reasoning or call of a tool."""
        return None if self.first_s is None else self.first_s - self.scheduled_s

    @property
    def e2e_s(self) -> float | None:
        return None if self.end_s is None else self.end_s - self.scheduled_s

    @property
    def itl_s(self) -> float | None:
        """The mean time of a token after the first, however many came together (as AIPerf has it); not known where all
        came at once."""
        if self.first_s is None or self.last_s is None or self.output_tokens < 2 or self.num_chunks < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)

    def chunk_arrived(self, now_s: float) -> None:
        if self.last_s is None:
            self.first_s = now_s
        else:
            self.gaps_s.append(now_s - self.last_s)
        self.last_s = now_s
        self.num_chunks += 1

    def fail(self, failure: Failure) -> None:
        self.outcome = Outcome.FAILED
        self.error, self.message = failure.kind, failure.message
