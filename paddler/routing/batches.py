"""How a batch of inputs is cut into requests of the queue: one request is one slot (design, "Weights")."""

from __future__ import annotations

from itertools import pairwise


def split_evenly(num_items: int, *, least: int, most: int) -> list[range]:
    """Consecutive ranges whose lengths differ by one at most: `most` of them, or as many as are not shorter than
    `least`; at least one, also for a pool without a slot (`most` 0)."""
    num_parts = max(1, min(num_items // least, most))
    ends = [num_items * number // num_parts for number in range(num_parts + 1)]
    return [range(start, end) for start, end in pairwise(ends)]
