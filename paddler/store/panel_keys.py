"""The keys of the web admin panel: who is logged in, and what its charts show. They belong to no pool."""

from __future__ import annotations

SESSION_S = 43_200
"""A session ends twelve hours after it was used last."""

HISTORY_S = 900
"""What the charts show."""
SAMPLE_S = 2
MAX_SAMPLES = HISTORY_S // SAMPLE_S


def session_key(prefix: str, digest: str) -> str:
    """string · whose session it is (`api.panel.sessions`, JSON), `digest` the SHA-256 of its id in hex · each balancer
    with a panel writes and reads · TTL `SESSION_S`, renewed when it is used · one a login."""
    return f"{prefix}:panel:session:{digest}"


def history_key(prefix: str) -> str:
    """stream · `s` the fleet at one time (`paddler.metrics.history`, JSON) · the sampler adds every `SAMPLE_S`,
    balancers with a panel read · TTL `HISTORY_S`, renewed · the last `MAX_SAMPLES`."""
    return f"{prefix}:panel:history"


def sampler_key(prefix: str) -> str:
    """string · id of the balancer that takes the samples · `lead` writes, each balancer with a panel reads · TTL the
    lease."""
    return f"{prefix}:panel:{{history}}:sampler"
