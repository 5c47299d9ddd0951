"""Leaves out for a while what fails: a tier that is down costs its deadline once, not with every prompt."""

from __future__ import annotations

FIRST_S = 1.0
MAX_S = 60.0


class Breaker:
    """Closed: it may be used. A failure opens it for a second, and each one that follows for twice as long, up to a
    minute; a success closes it. A call that outlived its deadline keeps it open until it comes back.

    Not thread-safe."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._wait_s = FIRST_S
        self._num_late = 0

    def is_closed(self, now: float) -> bool:
        return now >= self._until and self._num_late == 0

    def failed(self, now: float) -> None:
        if now < self._until:
            return  # of the same trouble: several calls were on their way
        self._until = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, MAX_S)

    def succeeded(self) -> None:
        """Not, as long as a call is late: this may be the one."""
        if self._num_late:
            return
        self._until, self._wait_s = float("-inf"), FIRST_S

    def is_late(self, now: float) -> None:
        """A call has not come back by its deadline."""
        self._num_late += 1
        self.failed(now)

    def came_back(self) -> None:
        """One of those."""
        self._num_late -= 1
