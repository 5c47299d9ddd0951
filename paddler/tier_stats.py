"""What an agent tells of the tiers behind its KV cache: in its process, in its hash, to whoever reads that."""

from __future__ import annotations

import msgspec
from msgspec import Struct

TIERS = ("ram", "disk", "peer", "shared")
"""The nearest first: host memory, a directory, the agent that has it, the store of the fleet."""

TIER_COUNTS = {
    "hits": "blocks of the KV cache found in the tier",
    "misses": "blocks looked for and not found there",
    "tokens": "tokens that came back from there instead of being computed",
    "saved_ms": "ms of prefill that these would have taken",
    "refused": "blocks from there that were corrupt, forged or foreign, and were computed",
    "failures": "times the tier was down, full or slower than its deadline",
}


def _short(name: str) -> str:
    return name.removeprefix("num_")


class TierStats(Struct, frozen=True, rename=_short):
    """Of one tier since the start: blocks found and not found there, tokens that came back and the seconds of prefill
    that they saved, blocks refused because they were corrupt, forged or foreign, failures of the tier; what it holds
    now (0 where it does not know)."""

    tier: str
    num_hits: int = 0
    num_misses: int = 0
    num_tokens: int = 0
    saved_s: float = 0.0
    num_refused: int = 0
    num_failures: int = 0
    num_bytes: int = 0
    num_blocks: int = 0
    bytes_per_s: float = 0.0
    """Measured, of reading; 0 as long as nothing was read."""


def encode_tiers(tiers: tuple[TierStats, ...]) -> bytes:
    """JSON for the field `tiers` of an agent's hash."""
    return msgspec.json.encode(tiers)


def decode_tiers(data: bytes | None) -> tuple[TierStats, ...]:
    """What this version can read of it."""
    try:
        return _decoder.decode(data) if data else ()
    except msgspec.MsgspecError:
        return ()


def counts_of(one: TierStats) -> dict[str, int]:
    """By what `TIER_COUNTS` calls it: what only grows, seconds as ms."""
    return {
        "hits": one.num_hits,
        "misses": one.num_misses,
        "tokens": one.num_tokens,
        "saved_ms": int(one.saved_s * 1000),
        "refused": one.num_refused,
        "failures": one.num_failures,
    }


def counter_name(tier: str, what: str) -> str:
    """The field of a pool's hash `counters`."""
    return f"kv_{tier}_{what}"


TIER_COUNTERS = frozenset(counter_name(tier, what) for tier in TIERS for what in TIER_COUNTS)
"""All fields of `counters` that are of tiers."""
_decoder = msgspec.json.Decoder(tuple[TierStats, ...])
