"""What an agent tells of the tiers behind its KV cache: in its process, in its hash, to whoever reads that."""

from __future__ import annotations

import msgspec
from msgspec import Struct

TIERS = ("ram", "disk", "peer", "shared")
"""The nearest first: host memory, a directory, the agent that has it, the store of the fleet."""


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

    @property
    def is_of_use(self) -> bool:
        """There is something to say of it: it holds, or has been asked for, anything."""
        return self != TierStats(self.tier)


def encode_tiers(tiers: tuple[TierStats, ...]) -> bytes:
    """JSON for the field `tiers` of an agent's hash."""
    return msgspec.json.encode(tiers)


def decode_tiers(data: bytes | None) -> tuple[TierStats, ...]:
    """What this version can read of it."""
    try:
        return _decoder.decode(data) if data else ()
    except msgspec.MsgspecError:
        return ()


_decoder = msgspec.json.Decoder(tuple[TierStats, ...])
