"""When to try again after an issue; pure.

Backoff is exponential with "equal jitter" (half of it fixed, half random), as M. Brooker's "Exponential Backoff and
Jitter" (AWS, 2015) names it: agents of a fleet that failed together do not come back together.
"""

from __future__ import annotations

from typing import assert_never

from paddler.remedies import Course

FIRST_S = 1.0
MOST_S = 300.0
SELDOM_FIRST_S = 60.0
SELDOM_MOST_S = 900.0
LOOK_S = 1.5
"""Between two looks at what another process does, or at a file; about, as all here."""
MOST_ASKED_S = 3600.0
"""A server that asks for more is asked after this long all the same."""
NUM_LITTLE = 2
"""Tries after a first one that brought a wrong file: a right one may have been damaged on its way."""


def retry_in_s(course: Course, attempt: int, chance: float, *, asked_s: float | None = None) -> float | None:
    """Seconds until the next try; None: there is none. `attempt` counts from 1 the tries that ended like this in
    sequence, `chance` is random in 0..1, `asked_s` is the server's own wish (`Retry-After`)."""
    match course:
        case Course.GIVES_UP | Course.SERVES_PROMPTS:
            return None
        case Course.RETRIES_LITTLE:
            if attempt > NUM_LITTLE:
                return None
            delay = _backoff(SELDOM_FIRST_S, SELDOM_MOST_S, attempt, chance)
        case Course.RETRIES_SELDOM:
            delay = _backoff(SELDOM_FIRST_S, SELDOM_MOST_S, attempt, chance)
        case Course.RETRIES:
            delay = _backoff(FIRST_S, MOST_S, attempt, chance)
        case (
            Course.WAITS_FOR_OTHER
            | Course.WATCHES_FILE
            | Course.WATCHES_FILE_AND_MEMORY
            | Course.ASKS_SERVER
            | Course.STANDS_ASIDE
        ):
            delay = LOOK_S * (0.5 + chance)
        case _:
            assert_never(course)
    if asked_s is None:
        return delay
    asked = min(asked_s, MOST_ASKED_S)
    return max(delay, asked * (1 + 0.1 * chance))


def _backoff(first_s: float, most_s: float, attempt: int, chance: float) -> float:
    whole = min(most_s, first_s * 2.0 ** min(attempt - 1, 30))
    return whole * (0.5 + chance / 2)
