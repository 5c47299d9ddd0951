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
        self._needs: deque[tuple[float, int]] = deque()

    def add(self, need: int, now: float) -> None:
        self._begun = now if self._begun is None else self._begun
        # What is older and less than this one can never be the most again.
        while self._needs and self._needs[-1][1] < need:
            self._needs.pop()
        if not self._needs or self._needs[-1][1] > need:
            self._needs.append((now, need))
        # One stood until the next one came.
        while len(self._needs) > 1 and self._needs[1][0] <= now - self._length_s:
            self._needs.popleft()

    def most(self, now: float) -> int | None:
        """None while it is not known for the whole time."""
        if self._begun is None or now - self._begun < self._length_s:
            return None
        return self._needs[0][1]

    def forget(self) -> None:
        """Nobody has looked for a while: anything may have been needed."""
        self._begun = None
        self._needs.clear()
