"""How many agents a demand needs, and how few it has needed lately. Pure."""

from __future__ import annotations

import math
from collections import deque

from msgspec import Struct


class Policy(Struct, frozen=True, kw_only=True):
    """`least` and `most` bound the agents that are ours; each has `slots`, and a slot is to have `target` unfinished
    requests. What was needed within the last `cooldown_s` is not stopped. Whoever is not in the pool `start_timeout_s`
    after its start has failed."""

    least: int
    most: int
    slots: int
    target: float = 1.0
    cooldown_s: float = 60.0
    start_timeout_s: float = 300.0

    def need(self, demand: int, foreign_slots: int) -> int:
        """Agents of ours for so many unfinished requests, when agents that others have started have `foreign_slots`."""
        slots = math.ceil(demand / self.target) - foreign_slots
        return min(max(math.ceil(slots / self.slots), self.least), self.most)


class Window:
    """The most that was needed within the last `length_s`: the stabilisation window of Kubernetes' autoscaler
    (`HorizontalPodAutoscalerBehavior`), which scales in by the highest recommendation in it."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._begun: float | None = None
        self._need = 0
        self._earlier: deque[tuple[int, float]] = deque()
        """Each with when it was over; each is more than whatever came later."""

    def add(self, need: int, now: float) -> None:
        """It stands until the next one."""
        if self._begun is None:
            self._begun = now
        else:
            while self._earlier and self._earlier[-1][0] <= self._need:
                self._earlier.pop()
            self._earlier.append((self._need, now))
        self._need = need

    def most(self, now: float) -> int | None:
        """None while it is not known for the whole time."""
        since = now - self._length_s
        if self._begun is None or self._begun > since:
            return None
        while self._earlier and self._earlier[0][1] <= since:
            self._earlier.popleft()
        return max(self._need, self._earlier[0][0] if self._earlier else 0)

    def forget(self) -> None:
        """Nobody has looked for a while: anything may have been needed."""
        self._begun = None
        self._earlier.clear()
