"""Fair queueing between the tenants of one class, charged in tokens.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM'96) for the tags, with the costs of the Virtual Token Counter
(Sheng et al., OSDI'24): a tenant pays for the prompt tokens that had to be computed and for the tokens generated. An
estimate is charged on submit and corrected on settle. Waiting requests are ordered by their finish tag; the clock
follows the start tags of what is given away, so a tenant that was idle neither saves up a claim nor pays for others.

All tags and costs are in tokens divided by weight. Functions of plain numbers: the caller keeps the clock of each
class and the last tag of each tenant in it.
"""

from __future__ import annotations

from msgspec import Struct

MAX_EXPECTED_OUTPUT = 512
DEFAULT_EXPECTED_OUTPUT = 256


class Tags(Struct, frozen=True):
    """`finish` orders the request and is its tenant's next `last_tag`; `start` moves the clock when it is given."""

    start: float
    finish: float


def cost(num_prompt_tokens: int, num_cached_tokens: int, max_tokens: int | None) -> int:
    """Tokens a request is expected to cost: uncached prompt + output. `max_tokens` is a limit and rarely reached, so
    it counts only up to `MAX_EXPECTED_OUTPUT`."""
    output = DEFAULT_EXPECTED_OUTPUT if max_tokens is None else min(max_tokens, MAX_EXPECTED_OUTPUT)
    return max(num_prompt_tokens - num_cached_tokens, 0) + output


def charge(vtime: float, last_tag: float, cost: float, weight: float) -> Tags:
    """The tags of a new request of a tenant. A `weight` of 2 gives twice the share of 1; it must be positive."""
    if weight <= 0:
        raise ValueError(f"a weight must be positive, not {weight}")
    start = max(vtime, last_tag)
    return Tags(start, start + cost / weight)


def advance(vtime: float, start: float) -> float:
    """The clock after a request with this start tag was given to an agent. It never goes back."""
    return max(vtime, start)


def correct(last_tag: float, estimated: float, real: float, weight: float) -> float:
    """The tenant's last tag once the real cost of one of its requests is known: 0 when it ended before it began, and
    what was computed when it failed or was cancelled.

    Requests that wait already keep their tags: the difference is settled with the tenant's next ones."""
    if weight <= 0:
        raise ValueError(f"a weight must be positive, not {weight}")
    return max(last_tag + (real - estimated) / weight, 0.0)
