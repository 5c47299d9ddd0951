"""What has been measured once a second, for the sparklines."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

KEPT = 900
"""A quarter of an hour."""
MAX_GAP = 60


class Samples:
    """The last values of a number, one a second; None where nobody knew."""

    def __init__(self, kept: int = KEPT) -> None:
        self._values: deque[float | None] = deque(maxlen=kept)
        self._second: int | None = None

    def take(self, value: float | None, now: float) -> None:
        """At `now`, in seconds. Of several in one second the last counts; seconds without any are a gap."""
        second = int(now)
        if self._second is not None and second <= self._second:
            self._values[-1] = value
            return
        missed = 0 if self._second is None else min(second - self._second - 1, MAX_GAP)
        self._values.extend([None] * missed)
        self._values.append(value)
        self._second = second

    @property
    def values(self) -> Sequence[float | None]:
        return list(self._values)

    @property
    def latest(self) -> float | None:
        return self._values[-1] if self._values else None
