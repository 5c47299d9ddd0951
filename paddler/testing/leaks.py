"""Which keys are left in a Redis that must not be."""

from __future__ import annotations

import redis

from paddler.store.keys import PoolKeys


def leaked_keys(url: str, prefix: str) -> list[str]:
    """Keys without a TTL outside of the permanent list."""
    client = redis.Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    keys: list[str] = [key.decode() for key in client.scan_iter(f"{prefix}:*", count=1000)]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    pools = {key.split("{")[1].split("}")[0] for key in keys if "{" in key}
    allowed = frozenset[str]().union(*(PoolKeys(prefix, pool).permanent() for pool in pools | {"default"}))
    kept = [key for key in keys if key not in allowed and client.ttl(key) == -1]  # pyright: ignore[reportUnknownMemberType]
    # An empty stream is no leak: it holds nothing and Redis keeps the key.
    leaks = [key for key in kept if client.type(key) != b"stream" or client.xlen(key)]  # pyright: ignore[reportUnknownMemberType]
    client.close()
    return leaks
