"""What a pool counts of the tiers of its agents, in Redis, where it outlives them."""

from __future__ import annotations

from collections import Counter

from paddler.store.tally import Tally
from paddler.tier_stats import TIERS, TierStats, counter_name, counts_of


class TierCounts:
    """Of one engine: `count` as often as there may be more to tell."""

    def __init__(self, pool: str, tally: Tally) -> None:
        self._pool = pool
        self._tally = tally
        self._told: Counter[str] = Counter()

    def count(self, tiers: tuple[TierStats, ...]) -> None:
        """What has come since the last time. A tier of no name that counters have is told of in the agent's hash
        alone."""
        for one in tiers:
            for what, number in counts_of(one).items() if one.tier in TIERS else ():
                name = counter_name(one.tier, what)
                if (more := number - self._told[name]) > 0:
                    self._tally.count(self._pool, name, more)
                    self._told[name] = number
