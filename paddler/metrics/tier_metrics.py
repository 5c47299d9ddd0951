"""What lies behind the KV caches (`paddler.tier_stats`), as Prometheus and StatsD read it: what was counted comes from
the pools, whose counters outlive agents, what is held now from the agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from paddler.jobs.lanes import Lane
from paddler.jobs.overview import PoolQueue
from paddler.tier_stats import TIER_COUNTS, TIERS, TierStats, counter_name

COUNTERS = {
    "hits": ("paddler_kv_hits", "Blocks of the KV cache found in a tier behind it."),
    "misses": ("paddler_kv_misses", "Blocks looked for in a tier and not found there."),
    "tokens": ("paddler_kv_restored_tokens", "Tokens that came back from a tier instead of being computed."),
    "saved_ms": ("paddler_kv_saved_seconds", "Prefill that these would have taken."),
    "refused": ("paddler_kv_refused", "Blocks from a tier that were corrupt, forged or foreign, and were computed."),
    "failures": ("paddler_kv_failures", "Times a tier was down, full or slower than its deadline."),
}
"""By what `TIER_COUNTS` calls it."""

GAUGES: Mapping[str, tuple[str, Callable[[TierStats], float]]] = {
    "paddler_agent_tier_bytes": ("What an agent keeps in a tier, in bytes.", lambda one: one.num_bytes),
    "paddler_agent_tier_blocks": ("Blocks that an agent keeps in a tier.", lambda one: one.num_blocks),
    "paddler_agent_tier_speed_bytes": (
        "Bytes a second at which an agent reads from a tier, as it has measured it.",
        lambda one: one.bytes_per_s,
    ),
}


def counted(pool: PoolQueue) -> Iterator[tuple[str, dict[str, int]]]:
    """Of each tier that anything was counted of, by what `TIER_COUNTS` calls it."""
    for tier in TIERS:
        numbers = {what: pool.counters.get(counter_name(tier, what), 0) for what in TIER_COUNTS}
        if any(numbers.values()):
            yield tier, numbers


def tier_families(pools: Sequence[PoolQueue], of_name: Mapping[tuple[str, str], list[Lane]]) -> Iterator[Metric]:
    """`of_name`: agents by pool and name."""
    for what, (name, help) in COUNTERS.items():
        family = CounterMetricFamily(name, help, labels=("pool", "tier"))
        for pool in pools:
            for tier, numbers in counted(pool):
                family.add_metric((pool.pool, tier), numbers[what] / 1000 if what == "saved_ms" else numbers[what])
        yield family
    for name, (help, value) in GAUGES.items():
        gauge = GaugeMetricFamily(name, help, labels=("pool", "agent", "tier"))
        for labels, lanes in of_name.items():
            sums: Counter[str] = Counter()
            for one in (one for lane in lanes for one in lane.tiers):
                sums[one.tier] += value(one)  # pyright: ignore[reportArgumentType]
            for tier, number in sums.items():
                gauge.add_metric((*labels, tier), number)
        yield gauge


def tier_gauges(pools: Sequence[PoolQueue]) -> dict[str, int]:
    """For StatsD, of the whole fleet and of the tiers there are: `kv_<tier>_<what>`."""
    gauges: Counter[str] = Counter()
    for pool in pools:
        for tier, numbers in counted(pool):
            for what, number in numbers.items():
                gauges[counter_name(tier, what)] += number
        for one in (one for lane in pool.lanes for one in lane.tiers):
            gauges[counter_name(one.tier, "bytes")] += one.num_bytes
            gauges[counter_name(one.tier, "blocks")] += one.num_blocks
    return dict(gauges)
