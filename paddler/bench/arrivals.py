"""When the conversations of an open loop begin: seconds since the start, going up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum


class Arrival(StrEnum):
    POISSON = "poisson"
    """As many independent users come: exponential gaps."""
    CONSTANT = "constant"


def arrivals(kind: Arrival, per_second: float, seed: int) -> Iterator[float]:
    """Without an end; the first of `constant` at 0."""
    if kind is Arrival.CONSTANT:
        number = 0
        while True:
            yield number / per_second
            number += 1
    rng = random.Random(f"{seed}/arrivals")
    due_s = 0.0
    while True:
        due_s += rng.expovariate(per_second)
        yield due_s
