"""What several commands say in the same words."""

from __future__ import annotations


def begun(opens: int, deaths: int) -> str:
    """How often an agent has begun a request, and how many of these were lost with it."""
    times = ("not yet", "once")[opens] if opens < 2 else f"{opens} times"
    return f"{times}, {deaths} agent{'' if deaths == 1 else 's'} lost" if deaths else times
