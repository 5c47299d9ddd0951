"""The keys of what scales a pool. They belong to the pool, as those of `PoolKeys`."""

from __future__ import annotations

from paddler.store.keys import PoolKeys


def autoscale_key(keys: PoolKeys) -> str:
    """string · what the autoscaler of a pool has started and how it stands (`paddler.autoscale.record`, JSON) · the one
    that acts writes, any that begins to act and `paddler autoscale --status` read · TTL a day."""
    return f"{keys.base}:autoscale"


def autoscale_lease_key(keys: PoolKeys) -> str:
    """string · id of the autoscaler that acts for a pool · `lead` writes, each autoscaler of the pool reads · TTL the
    lease."""
    return f"{keys.base}:autoscale:lease"
