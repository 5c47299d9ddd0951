"""What the engine, the keeper and the tiers are to each other.

    engine (its thread) -> Keeper (never waits) -> tiers (threads of the keeper, may wait up to a deadline)

The engine has states in its context and in host memory (`saved_states.py`). What lies behind is the keeper's: it reads
ahead what a new prompt begins with, and writes what the engine has computed, so that no step waits for a disk or a
network. A block is a state of `saved_states.BLOCK` tokens, or of fewer at the end of a conversation (a tail).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from paddler.tier_stats import TierStats
from workers.agent.saved_states import State
from workers.agent.tokens import TokenArray

PUBLIC_SCOPE = "*"
"""Of prefixes that an operator has pinned for everybody: a sequence looks in its own scope and in this one. No tenant
has this name."""


class TierUnavailable(Exception):
    """A tier is down, full, or slower than its deadline; the keeper leaves it out for a while."""


class Tier(Protocol):
    """Where packed blocks lie: `disk`, `shared`, `peer`. Called from threads of the keeper, several at once.

    Names and bytes are opaque here; what comes back may be cut off, forged or of somebody else: `packing.unpack` tells.
    """

    @property
    def name(self) -> str: ...

    def read(self, names: Sequence[bytes], *, peers: Sequence[str], deadline_s: float) -> list[bytes]:
        """The packed blocks of the longest beginning of `names` that is here; [] when the first is missing. `peers` are
        the addresses of agents that may hold them. Raises `TierUnavailable`."""
        ...

    def write(self, name: bytes, packed: bytes, *, num_tokens: int, is_pinned: bool) -> None:
        """Whole or not at all. A name that is here is of the same content: it is of use again, and nothing more; but a
        tail is replaced. Raises `TierUnavailable`."""
        ...

    def close(self) -> None: ...


class Loaded(Struct, frozen=True):
    """The state of the positions from `start` to `end`, as it was saved, and from which tier. That of a tail may go on
    behind `end`, with tokens that are not wanted."""

    start: int
    end: int
    state: State
    tier: str


class Keeper(Protocol):
    """Of one engine: it knows the secret and the fingerprint. Every method returns at once, and may be called from the
    engine's thread; `stats`, `held` from any."""

    def root(self, scope: str) -> bytes: ...

    def next(self, above: bytes, tokens: TokenArray) -> bytes: ...

    def is_worth(self, num_tokens: int, num_bytes: int, prefill_token_s: float, *, has_peers: bool = True) -> bool:
        """Whether reading so much from the fastest tier that may have it costs less than computing so many tokens.
        `has_peers`: agents are named that may have it."""
        ...

    def fetch(
        self,
        request_id: str,
        scope: str,
        tokens: TokenArray,
        start: int,
        *,
        peers: Sequence[str],
        deadline_s: float,
        owner: str = "",
    ) -> None:
        """Begin to read the blocks of these tokens that lead on from position `start`, a multiple of a block. `owner`
        is the request that an agent may have handed over with a tail of its own."""
        ...

    def fetched(self, request_id: str) -> list[Loaded] | None:
        """None: still on the way, until the deadline at most. Otherwise what came, in order and without a gap ([]:
        nothing); once, and then the request is forgotten. Unknown: []."""
        ...

    def forget(self, request_id: str) -> None: ...

    def has(self, name: bytes) -> bool:
        """Whether this block is known to be kept in every tier that is written to, or on its way there."""
        ...

    def write(self, above: bytes, tokens: TokenArray, state: State, *, is_tail: bool, is_pinned: bool = False) -> bool:
        """Keep the state of these tokens, which follow the block `above`. False: too much is on its way already, and
        it is dropped."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until what is on its way is written; the only method that waits, never called from an engine's step."""
        ...

    def hit(self, tier: str, num_tokens: int, saved_s: float) -> None:
        """So many tokens of this tier were taken into the context."""
        ...

    @property
    def stats(self) -> tuple[TierStats, ...]: ...

    def close(self) -> None: ...
