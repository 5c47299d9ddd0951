"""Headers that tell where the limits of an API key stand, in OpenAI's names and, on its routes, in Anthropic's.

| header | what |
|---|---|
| `x-ratelimit-limit-requests`, `-tokens` | the allowance of a minute |
| `x-ratelimit-remaining-requests`, `-tokens` | what is left of it, this request taken off; its tokens by estimate |
| `x-ratelimit-reset-requests`, `-tokens` | when all of it is there again, as `1m30s` |
| `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` | the same, the last as a time; so for `-tokens-` |
| `x-paddler-class` | the class that a request was given, if its key may not have the one it asked for |

A key without such a limit tells nothing of it; what admission tells then (`api/standing.py`) stays.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from litestar.types import HTTPResponseStartEvent, Scope

from api.anthropic.errors import is_for_anthropic
from api.connection import Headers
from api.standing import duration
from paddler.tenants.account import Account


def with_limits(event: HTTPResponseStartEvent, account: Account, scope: Scope, now_s: float) -> HTTPResponseStartEvent:
    """The head of an answer, with what is known of its key's limits. `now_s` is seconds since the epoch."""
    told = _told(account, now_s if is_for_anthropic(scope) else None)
    if account.lowered_class:
        told.append((b"x-paddler-class", account.lowered_class.encode()))
    if not told:
        return event
    names = {name for name, _ in told}
    headers = [header for header in event["headers"] if header[0] not in names]
    return {"type": "http.response.start", "status": event["status"], "headers": [*headers, *told]}


def _told(account: Account, anthropic_now_s: float | None) -> Headers:
    standing, limits = account.standing, account.key.limits
    if standing is None:
        return []
    headers: Headers = []
    for name, limit, left, reset_ms in (
        ("requests", limits.requests_per_minute, standing.requests_left, standing.requests_reset_ms),
        ("tokens", limits.tokens_per_minute, standing.tokens_left, standing.tokens_reset_ms),
    ):
        if limit is None:
            continue
        facts = {"limit": str(limit), "remaining": str(left), "reset": duration(reset_ms)}
        headers += [(f"x-ratelimit-{fact}-{name}".encode(), value.encode()) for fact, value in facts.items()]
        if anthropic_now_s is not None:
            at = datetime.fromtimestamp(anthropic_now_s, UTC) + timedelta(milliseconds=reset_ms)
            facts["reset"] = at.isoformat(timespec="seconds").replace("+00:00", "Z")
            headers += [
                (f"anthropic-ratelimit-{name}-{fact}".encode(), value.encode()) for fact, value in facts.items()
            ]
    return headers
