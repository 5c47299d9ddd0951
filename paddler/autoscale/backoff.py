"""When the next agent may be started, after starts that came to nothing."""

from __future__ import annotations

FIRST_S = 1.0
MAX_S = 300.0
"""What can never start costs a try in five minutes, and only while requests wait for it."""


class Backoff:
    """Doubles with each failure. `trouble` is the last one, empty when all is well."""

    def __init__(self) -> None:
        self.failures = 0
        self.trouble = ""
        self.next_start = 0.0
        self.failed_at: float | None = None

    def fail(self, trouble: str, now: float, *, is_final: bool) -> float:
        """`is_final`: another try would end the same. Returns how long none is made, s."""
        self.failures += 1
        delay = MAX_S if is_final else min(FIRST_S * 2.0 ** min(self.failures - 1, 20), MAX_S)
        self.trouble, self.next_start, self.failed_at = trouble, now + delay, now
        return delay

    def succeed(self) -> None:
        self.failures, self.trouble, self.next_start, self.failed_at = 0, "", 0.0, None

    def is_over(self, now: float) -> bool:
        return now >= self.next_start

    def resume(self, failures: int, trouble: str, now: float, retry_in_s: float) -> None:
        """Where another autoscaler was."""
        self.failures, self.trouble = failures, trouble
        self.next_start, self.failed_at = now + retry_in_s, now
