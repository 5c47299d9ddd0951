"""Taking saved states back into the KV cache: from host memory, or as they came from a tier, as many blocks a step as
its time allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from paddler.clock import Clock
from paddler.tier_stats import TierStats
from workers.agent.context import Context
from workers.agent.saved_states import BLOCK, Block, Kept, SavedStates, State
from workers.agent.scheduler import Scheduler
from workers.agent.tiers.contract import PUBLIC_SCOPE
from workers.agent.tokens import TokenArray

log = structlog.get_logger(__name__)

RAM = "ram"
MIN_RESTORED = 32
"""Fewer saved tokens are not worth the room of a block: computing them takes a step, as the rest of a prompt does."""
FIRST_BYTE_S = 1e-9
"""What a byte takes before one was measured; of SmolLM2's states it was a seventh of that."""
WEIGHT = 0.3
"""Of the newest measurement."""


class Piece(Struct, frozen=True, eq=False):
    """The state of a block from position `start` to `state_end` at most, whose tokens are wanted up to `end`; `block`
    is that of host memory, if it is there, and `tier` where it was read."""

    start: int
    end: int
    state_end: int
    state: State
    scope: str
    block: Block | None
    tier: str = RAM


def num_room(pieces: Sequence[Piece], at: int) -> int:
    """Cells that restoring these behind position `at` needs at most: for a moment a block has cells of its own for what
    is there already, or not wanted."""
    return pieces[-1].state_end - at + max(at - pieces[0].start, 0) if pieces else 0


class Restorer:
    """Of one context, whose empty sequence `scratch` it uses. Of a step it is told what time there is (`begin`), it
    tells what it takes: what is restored (`spent_s`), and what is `planned`. One block is restored in any case.

    `hit` is told of tokens from other tiers than host memory, and of the seconds of prefill they save."""

    def __init__(
        self,
        context: Context,
        saved: SavedStates,
        clock: Clock,
        scheduler: Scheduler,
        *,
        scratch: int,
        hit: Callable[[str, int, float], None],
    ) -> None:
        self._context = context
        self._saved = saved
        self._clock = clock
        self._scheduler = scheduler
        self._scratch = scratch
        self._hit = hit
        self._pending: dict[int, list[Piece]] = {}
        """By sequence, what did not fit into the steps so far."""
        self._target_s = 0.0
        self.spent_s = self._planned_s = 0.0
        self._byte_s = FIRST_BYTE_S
        self.num_tokens = self._num_from_ram = self._num_hits = self._num_misses = self._num_refused = 0
        self._saved_s = self.token_bytes = 0.0
        """The latter: what the state of a token has, as measured; 0: not yet."""
        self._is_measured = False

    @property
    def stats(self) -> TierStats:
        """Of host memory. From any thread."""
        return TierStats(
            RAM,
            num_hits=self._num_hits,
            num_misses=self._num_misses,
            num_tokens=self._num_from_ram,
            saved_s=self._saved_s,
            num_refused=self._num_refused,
            num_bytes=self._saved.num_bytes,
            num_blocks=self._saved.num_blocks,
            bytes_per_s=1 / self._byte_s if self._is_measured else 0.0,
        )

    def reach(self, scope: str, tokens: TokenArray, start: int) -> list[Piece]:
        """What is in host memory and leads on from there: of this scope or, if that is longer, of the public one and
        then of this."""
        own = self._reach(scope, tokens, start)
        if scope == PUBLIC_SCOPE:
            return own
        public = self._reach(PUBLIC_SCOPE, tokens, start)
        if public and (not own or public[-1].end > own[-1].end):
            return public + self._reach(scope, tokens, public[-1].end)
        return own

    def _reach(self, scope: str, tokens: TokenArray, start: int) -> list[Piece]:
        parts = self._saved.reach(scope, tokens, start)
        states = [(one.block, one.end, one.block.state) for one in parts]
        return [
            Piece(block.start, end, block.end, state, scope, block) for block, end, state in states if state is not None
        ]

    def begin(self, target_s: float) -> None:
        """A step."""
        self._target_s, self.spent_s, self._planned_s = target_s, 0.0, 0.0

    def planned(self, pieces: Sequence[Piece]) -> tuple[int, float]:
        """How many of these, which a newcomer begins with, will be restored in this step if it is admitted, and what
        that takes."""
        before_s = self._planned_s
        num, self._planned_s = self._fitting(pieces, before_s)
        return num, self._planned_s - before_s

    def missed(self, num_tokens: int) -> None:
        """So many tokens of a newcomer were not here."""
        self._num_misses += num_tokens // BLOCK

    def hold(self, key: int, pieces: Sequence[Piece]) -> None:
        """To be restored for this sequence, behind what it has."""
        if pieces:
            self._pending[key] = list(pieces)

    def is_pending(self, key: int) -> bool:
        return key in self._pending

    @property
    def pending_bytes(self) -> int:
        return sum(piece.state.nbytes for pieces in self._pending.values() for piece in pieces)

    def forget(self, key: int) -> None:
        self._pending.pop(key, None)

    def due(self, key: int, *, all_at_once: bool = False) -> list[Piece]:
        """What the step has time for of what this sequence waits for; it is restored, or forgotten."""
        pieces = self._pending.pop(key, [])
        num, self.spent_s = self._fitting(pieces, self.spent_s)
        if all_at_once:
            num = len(pieces)
        self.hold(key, pieces[num:])
        self._planned_s = max(self._planned_s, self.spent_s)
        return pieces[:num]

    def restore(self, key: int, pieces: Sequence[Piece], at: int) -> tuple[int, list[Kept]]:
        """Into the cells of this sequence, which ends at position `at`: where it ends then, short of the last piece if
        one was refused, and of whom less is saved."""
        for piece in pieces:
            began_at = self._clock.monotonic()
            if not self._context.restore(key, piece.state, at, piece.end, self._scratch):
                log.warning("a saved state was refused: its tokens are computed", start=at, end=piece.end)
                self._num_refused += 1
                self.forget(key)
                return at, [] if piece.block is None else self._saved.drop(piece.scope, piece.block)
            self._measure((self._clock.monotonic() - began_at) / max(piece.state.nbytes, 1))
            self.token_bytes = max(self.token_bytes, piece.state.nbytes / (piece.state_end - piece.start))
            self._count(piece, piece.end - at)
            at = piece.end
        if pieces and (block := pieces[-1].block) is not None:
            self._saved.used(block)
        return at, []

    def _fitting(self, pieces: Sequence[Piece], used_s: float) -> tuple[int, float]:
        num = 0
        for piece in pieces:
            piece_s = piece.state.nbytes * self._byte_s
            if used_s and used_s + piece_s > self._target_s:
                break
            used_s, num = used_s + piece_s, num + 1
        return num, used_s

    def _measure(self, byte_s: float) -> None:
        # Slower is believed at once: what is restored in a step is bounded by it.
        is_first, self._is_measured = not self._is_measured, True
        weight = 1.0 if is_first or byte_s > self._byte_s else WEIGHT
        self._byte_s = max(self._byte_s + weight * (byte_s - self._byte_s), 1e-15)

    def _count(self, piece: Piece, num_tokens: int) -> None:
        self.num_tokens += num_tokens
        saved_s = num_tokens * self._scheduler.prefill_token_s
        if piece.tier != RAM:
            self._hit(piece.tier, num_tokens, saved_s)
            return
        self._num_hits += 1
        self._num_from_ram += num_tokens
        self._saved_s += saved_s
