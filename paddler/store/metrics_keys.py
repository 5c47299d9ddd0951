"""The keys of what is reported of the fleet; they belong to no pool. As `keys.py`."""

from __future__ import annotations

import hashlib


def statsd_sender_key(prefix: str, sink: str) -> str:
    """string · id of the process that sends the fleet's gauges to a sink of StatsD · `lead` writes, each process with
    `--statsd-addr` reads · TTL the lease · one a sink."""
    return f"{prefix}:statsd:{{{_digest(sink)}}}:sender"


def statsd_reported_key(prefix: str, sink: str) -> str:
    """string · how many requests had been buffered by the last report to a sink · the sender swaps it · TTL a day · one
    a sink."""
    return f"{prefix}:statsd:{{{_digest(sink)}}}:reported"


def _digest(sink: str) -> str:
    return hashlib.sha256(sink.encode()).hexdigest()[:12]
