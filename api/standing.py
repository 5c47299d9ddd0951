"""Headers that tell where a client stands: OpenAI's names, with what admission really knows.

What bounds requests is how many may wait (`--max-buffered-requests`, `--max-batch-requests`), or a tenant's share of
that (`--tenant-share`). Nothing bounds them by time, and nothing bounds tokens.
"""

from __future__ import annotations

import math

from api.connection import Headers
from paddler.jobs.gateway import Reply

POSITION = b"x-queue-position"
_PREFIX = "x-ratelimit"


def standing_headers(reply: Reply) -> Headers:
    """Its place in the queue, if it had to wait, and how many more may."""
    headers: Headers = []
    if reply.position is not None:
        headers.append((POSITION, b"%d" % reply.position))
    standing = reply.standing
    if standing is not None:
        told = limit_headers(standing.limit, standing.remaining, standing.reset_ms)
        headers += [(name.encode(), value.encode()) for name, value in told.items()]
    return headers


def limit_headers(limit: int, remaining: int, reset_ms: int | None) -> dict[str, str]:
    headers = {f"{_PREFIX}-limit-requests": str(limit), f"{_PREFIX}-remaining-requests": str(remaining)}
    return headers if reset_ms is None else headers | {f"{_PREFIX}-reset-requests": duration(reset_ms)}


def duration(ms: int) -> str:
    """As OpenAI writes one: `20ms`, `7s`, `1m30s`."""
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, seconds = divmod(math.ceil(ms / 1000), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
