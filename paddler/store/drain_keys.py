"""The key of what an operator asked of an agent's process. It belongs to a pool, as those of `PoolKeys`."""

from __future__ import annotations

from paddler.store.keys import PoolKeys


def drained_key(keys: PoolKeys, process: str) -> str:
    """string · `drain` or `remove`: what holds for a process of an agent, whatever id it registers under · order writes
    and deletes, renew keeps it, register reads · TTL a day from the last renewal on."""
    return f"{keys.base}:drained:{process}"
