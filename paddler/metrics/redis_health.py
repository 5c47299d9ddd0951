"""How Redis is: what it says of itself, and how long it takes to say anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from paddler.clock import Clock
from paddler.store.client import Store, is_refusal

FAULTS = ("eviction", "no_aof", "aof_write", "aof_rewrite", "rdb_save", "replica")
"""`eviction`: keys may be evicted when it is full; `no_aof`: a restart loses the queue; `aof_write`, `aof_rewrite`,
`rdb_save`: the last one has failed; `replica`: this server is no primary."""


class RedisHealth(Struct, frozen=True, kw_only=True):
    """`latency_s` is that of a PING. The rest is None where Redis does not tell: a managed one may refuse INFO.
    `memory_max` 0: no limit."""

    latency_s: float
    memory_used: int | None = None
    memory_max: int | None = None
    clients: int | None = None
    faults: Mapping[str, bool] | None = None


async def read_redis_health(store: Store, clock: Clock) -> RedisHealth:
    """Raises what Redis raises when it cannot be reached."""
    began = clock.monotonic()
    await store.redis.ping()
    latency_s = clock.monotonic() - began
    try:
        info: dict[str, Any] = await store.redis.info()
    except Exception as error:
        if not is_refusal(error):
            raise
        return RedisHealth(latency_s=latency_s)
    return RedisHealth(
        latency_s=latency_s,
        memory_used=_number(info, "used_memory"),
        memory_max=_number(info, "maxmemory"),
        clients=_number(info, "connected_clients"),
        faults=faults_in(info),
    )


def faults_in(info: Mapping[str, Any]) -> dict[str, bool]:
    """Of what INFO says; what it does not say is no fault."""
    return {
        "eviction": info.get("maxmemory_policy", "noeviction") != "noeviction",
        "no_aof": not info.get("aof_enabled", 1),
        "aof_write": info.get("aof_last_write_status", "ok") != "ok",
        "aof_rewrite": info.get("aof_last_bgrewrite_status", "ok") != "ok",
        "rdb_save": info.get("rdb_last_bgsave_status", "ok") != "ok",
        "replica": info.get("role", "master") != "master",
    }


def _number(info: Mapping[str, Any], name: str) -> int | None:
    value = info.get(name)
    return value if isinstance(value, int) else None
