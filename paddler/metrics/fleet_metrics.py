"""The fleet's numbers as Prometheus reads them. Labels are names of pools and agents, and words of this code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from paddler.jobs.overview import Lane, PoolQueue
from paddler.metrics.fleet import FleetReading
from paddler.metrics.redis_health import RedisHealth
from paddler.metrics.tier_metrics import tier_families
from paddler.tier_stats import TIER_COUNTERS

TOKEN_COUNTERS = {
    "prompt_tokens": ("paddler_prompt_tokens", "Tokens of the prompts of requests that agents have ended."),
    "cached_tokens": ("paddler_cached_prompt_tokens", "Of these, tokens that were in the KV cache already."),
    "output_tokens": ("paddler_output_tokens", "Tokens that these requests have generated."),
    "embedded_tokens": ("paddler_embedded_tokens", "Tokens of what was embedded or ranked."),
}
"""What agents count in the hash `counters` of a pool, with the name and the help of the metric."""


def hit_ratio(pool: PoolQueue) -> float | None:
    """The share of all prompt tokens, since the pool began, that nobody had to compute; None before the first."""
    prompt = pool.counters.get("prompt_tokens", 0)
    return pool.counters.get("cached_tokens", 0) / prompt if prompt else None


class FleetCollector(Collector):
    def __init__(self, reading: FleetReading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        reading = self._reading
        yield _gauge("paddler_redis_up", "1 if Redis answers this process.", float(reading.redis is not None))
        if reading.redis is None:
            return
        yield from _redis(reading.redis)
        yield _gauge("paddler_worker_up", "1 if a worker does the upkeep.", float(reading.is_worker_running))
        # The names of Paddler 4, of the whole fleet; the second is a gauge all the same.
        yield _gauge("paddler_slots_processing", "Slots that a request has been given to.", reading.slots_processing)
        yield _gauge("paddler_slots_total", "Slots of all agents.", reading.slots_total)
        yield _gauge("paddler_requests_buffered", "Requests that wait for a slot.", reading.requests_buffered)
        yield from _pools(reading.pools)
        yield from _counters(reading.pools)
        yield from _agents(reading.pools)


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _redis(redis: RedisHealth) -> Iterator[Metric]:
    yield _gauge("paddler_redis_latency_seconds", "What a PING of Redis took.", redis.latency_s)
    if redis.memory_used is not None:
        yield _gauge("paddler_redis_memory_used_bytes", "Memory that Redis has in use.", redis.memory_used)
    if redis.memory_max is not None:
        yield _gauge("paddler_redis_memory_max_bytes", "Memory that Redis may use; 0 is no limit.", redis.memory_max)
    if redis.clients is not None:
        yield _gauge("paddler_redis_clients", "Connections to Redis.", redis.clients)
    if redis.faults is not None:
        family = GaugeMetricFamily(
            "paddler_redis_fault", "1 if Redis is not as a queue needs it, or has failed to write.", labels=("fault",)
        )
        for fault, is_there in redis.faults.items():
            family.add_metric((fault,), float(is_there))
        yield family


def _pools(pools: Sequence[PoolQueue]) -> Iterator[Metric]:
    def of_each(name: str, help: str, value: Callable[[PoolQueue], float | None]) -> Metric:
        family = GaugeMetricFamily(name, help, labels=("pool",))
        for pool in pools:
            if (number := value(pool)) is not None:
                family.add_metric((pool.pool,), number)
        return family

    yield of_each("paddler_pool_slots", "Slots of a pool's agents.", lambda pool: _sum(pool, "slots"))
    yield of_each(
        "paddler_pool_slots_processing",
        "Slots of a pool that a request has been given to.",
        lambda pool: sum(min(lane.requests, lane.slots) for lane in pool.lanes),
    )
    family = GaugeMetricFamily(
        "paddler_pool_requests_buffered",
        "Requests that wait in a pool, by the class as which they are served.",
        labels=("pool", "class"),
    )
    for pool in pools:
        for request_class, number in pool.waiting.items():
            family.add_metric((pool.pool, request_class), number)
    yield family
    yield of_each(
        "paddler_pool_oldest_wait_seconds",
        "How long the request waits that came first; 0 if none does.",
        lambda pool: (pool.oldest_wait_ms or 0) / 1000,
    )
    yield of_each(
        "paddler_pool_demand",
        "Unfinished requests of a pool, waiting or running, but for class batch: what an autoscaler reads.",
        lambda pool: pool.demand,
    )
    yield of_each(
        "paddler_pool_demand_batch",
        "Unfinished requests of class batch, waiting or running.",
        lambda pool: pool.demand_batch,
    )
    yield of_each(
        "paddler_pool_backlog_tokens",
        "Tokens, as estimated, that what waits will cost.",
        lambda pool: pool.backlog_tokens,
    )
    yield of_each(
        "paddler_pool_dead_letters",
        "Requests that are kept because agent after agent was lost over them.",
        lambda pool: pool.dead_letters,
    )
    yield of_each(
        "paddler_pool_tokens_per_second",
        "What a pool's agents compute, as they have measured it: prompts and output.",
        lambda pool: sum(lane.rate or 0.0 for lane in pool.lanes),
    )
    yield of_each(
        "paddler_pool_cache_hit_ratio",
        "The share of prompt tokens, since the pool began, that were in a KV cache.",
        hit_ratio,
    )
    agents = GaugeMetricFamily("paddler_pool_agents", "Agents of a pool by state.", labels=("pool", "state"))
    for pool in pools:
        for state in STATES:
            agents.add_metric((pool.pool, state), sum(_state(lane) == state for lane in pool.lanes))
    yield agents


STATES = ("ready", "waiting", "loading", "failed", "draining", "drained", "leaving", "lost", "other")
"""Of agents: `lost` is one whose lease is over, `other` one of a version that knows more."""


def _state(lane: Lane) -> str:
    if lane.lease_left_ms < 0:
        return "lost"
    return lane.state if lane.state in STATES else "other"


def _sum(pool: PoolQueue, field: str) -> float:
    return sum(getattr(lane, field) for lane in pool.lanes)


def _counters(pools: Sequence[PoolQueue]) -> Iterator[Metric]:
    for field, (name, help) in TOKEN_COUNTERS.items():
        family = CounterMetricFamily(name, help, labels=("pool",))
        for pool in pools:
            family.add_metric((pool.pool,), pool.counters.get(field, 0))
        yield family
    events = CounterMetricFamily(
        "paddler_pool_events", "What has happened in a pool, as `paddler queue` counts it.", labels=("pool", "event")
    )
    for pool in pools:
        for event, number in pool.counters.items():
            if event not in TOKEN_COUNTERS and event not in TIER_COUNTERS:
                events.add_metric((pool.pool, event), number)
    yield events


def _agents(pools: Sequence[PoolQueue]) -> Iterator[Metric]:
    """By name, as an id is new with every start: agents of one name in one pool are told of together."""
    of_name: defaultdict[tuple[str, str], list[Lane]] = defaultdict(list)
    for pool in pools:
        for lane in pool.lanes:
            of_name[pool.pool, lane.name].append(lane)

    def of_each(name: str, help: str, value: Callable[[Lane], float | None]) -> Metric:
        family = GaugeMetricFamily(name, help, labels=("pool", "agent"))
        for labels, lanes in of_name.items():
            values = [number for lane in lanes if (number := value(lane)) is not None]
            if values:
                family.add_metric(labels, sum(values))
        return family

    yield of_each("paddler_agent_slots", "Slots of an agent.", lambda lane: lane.slots)
    yield of_each(
        "paddler_agent_slots_processing",
        "Slots of an agent that a request has been given to.",
        lambda lane: min(lane.requests, lane.slots),
    )
    yield of_each(
        "paddler_agent_tokens_per_second",
        "What an agent computes, as it has measured it: prompts and output.",
        lambda lane: lane.rate,
    )
    yield of_each(
        "paddler_agent_prefill_tokens_per_second",
        "What an agent computes of one prompt, as it has measured it.",
        lambda lane: lane.prefill,
    )
    yield of_each(
        "paddler_agent_saved_bytes",
        "Host memory that an agent has filled with what left its KV cache (`--kv-ram`).",
        lambda lane: lane.saved_bytes,
    )
    yield of_each("paddler_agent_saved_tokens", "Tokens that an agent has saved there.", lambda lane: lane.saved_tokens)
    yield of_each(
        "paddler_agent_restored_tokens",
        "Tokens that have come back from there instead of being computed, since the agent's start.",
        lambda lane: lane.restored_tokens,
    )
    yield from tier_families(pools, of_name)
    ratio = GaugeMetricFamily(
        "paddler_agent_cache_hit_ratio",
        "The share of an agent's prompt tokens, since its start, that were in its KV cache.",
        labels=("pool", "agent"),
    )
    for labels, lanes in of_name.items():
        if prompt := sum(lane.prompt_tokens for lane in lanes):
            ratio.add_metric(labels, sum(lane.cached_tokens for lane in lanes) / prompt)
    yield ratio
    yield of_each(
        "paddler_agent_context_tokens", "Cells of an agent's KV cache.", lambda lane: lane.context_size or None
    )
    yield of_each(
        "paddler_agent_held_tokens",
        "Tokens in an agent's KV cache, of sequences that run or have ended.",
        lambda lane: lane.held_tokens,
    )
    yield of_each(
        "paddler_agent_held_sequences",
        "Sequences in an agent's KV cache that run or have ended.",
        lambda lane: lane.held_sequences,
    )
    yield of_each(
        "paddler_agent_parked_sequences_max",
        "Ended sequences that an agent's KV cache keeps at most.",
        lambda lane: lane.max_parked,
    )
    yield of_each("paddler_agent_issues", "What keeps an agent from serving its model.", lambda lane: len(lane.issues))
    family = GaugeMetricFamily(
        "paddler_agent_state", "Agents of a name that are in a state.", labels=("pool", "agent", "state")
    )
    for labels, lanes in of_name.items():
        for state in STATES:
            if number := sum(_state(lane) == state for lane in lanes):
                family.add_metric((*labels, state), number)
    yield family
    info = GaugeMetricFamily("paddler_agent_info", "The model of an agent.", labels=("pool", "agent", "model"))
    for labels, lanes in of_name.items():
        for model in sorted({lane.model for lane in lanes if lane.model}):
            info.add_metric((*labels, model), 1)
    yield info
