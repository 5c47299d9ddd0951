"""Keys as JSON, for programs: all that is known of one but the hash of its secret."""

from __future__ import annotations

from typing import Any

import msgspec

from paddler.tenants.records import ApiKey


def shown_key(key: ApiKey, now_ms: float) -> dict[str, Any]:
    """Times are ms since the epoch."""
    told = msgspec.structs.asdict(key)
    for name in ("secret_hash", "old_hash", "old_until_ms"):
        del told[name]
    return told | {"state": key.state(now_ms)}
