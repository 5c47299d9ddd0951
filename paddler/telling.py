"""What several commands say in the same words."""

from __future__ import annotations

from collections.abc import Mapping


def begun(opens: int, deaths: int) -> str:
    """How often an agent has begun a request, and how many of these were lost with it."""
    times = ("not yet", "once")[opens] if opens < 2 else f"{opens} times"
    return f"{times}, {deaths} agent{'' if deaths == 1 else 's'} lost" if deaths else times


def tier(counts: Mapping[str, int], num_bytes: int, num_blocks: int) -> str:
    """What a tier behind the KV cache holds and was good for; `counts` by what `paddler.tier_stats.TIER_COUNTS` calls
    it. Troubles are told of where there are any."""
    asked = counts["hits"] + counts["misses"]
    parts = [f"{num_blocks:,} blocks in {num_bytes / 1e6:,.0f} MB"] if num_blocks or num_bytes else []
    if asked:
        parts.append(f"{counts['hits']:,} of {asked:,} blocks found")
    if counts["tokens"]:
        parts.append(f"{counts['tokens']:,} tokens came back ({counts['saved_ms'] / 1000:,.1f} s saved)")
    parts += [f"{counts[trouble]:,} {trouble}" for trouble in ("refused", "failures") if counts[trouble]]
    return ", ".join(parts) or "nothing yet"
