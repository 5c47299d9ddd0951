"""One pinned prefix as an agent has it, and how it stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from paddler.engine import Pinned
from paddler.prefixes.records import Held, Prefix, State
from paddler.wire.agent import Generate
from workers.agent.tiers.contract import PUBLIC_SCOPE

AGAIN_S = 2.0
MAX_AGAIN_S = 300.0
"""What gave way, or was evicted by running requests, is tried again so much later, and later each time."""
MAX_DOUBLINGS = 8


class Kept(Struct, eq=False):
    """`content` is what was pinned; `tokens` what it is here, None before that was counted. `request_id` is the job
    that made it resident, or tries to, `older` are those before it, of which something may still be there. `former` are
    jobs of the version before, which stays until this one is resident."""

    prefix: Prefix
    content: Generate | None = None
    tokens: tuple[int, ...] | None = None
    request_id: str = ""
    older: list[str] = []
    former: list[str] = []
    is_under_way: bool = False
    refusal: str = ""
    try_at: float = 0.0
    counted_at: float = 0.0
    num_losses: int = 0
    lost_at: float = 0.0

    @property
    def scope(self) -> str:
        return PUBLIC_SCOPE if self.prefix.tenant is None else self.prefix.tenant

    @property
    def request_ids(self) -> list[str]:
        """Of all jobs of which something may be there."""
        return [one for one in (*self.former, *self.older, self.request_id) if one]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens or ())

    def lost(self, now: float) -> None:
        """Running requests took its place."""
        if now - self.lost_at > 2 * MAX_AGAIN_S:
            self.num_losses = 0
        self.try_at = now + min(AGAIN_S * 2**self.num_losses, MAX_AGAIN_S)
        self.num_losses, self.lost_at = min(self.num_losses + 1, MAX_DOUBLINGS), now

    def is_resident(self, standing: Mapping[str, Pinned]) -> bool:
        held = standing.get(self.request_id)
        return held is not None and self.tokens is not None and held.num_resident >= len(self.tokens)

    def held(self, standing: Mapping[str, Pinned], *, is_computing: bool) -> Held:
        """What the agent tells of it."""
        held = standing.get(self.request_id)
        state: State = "waiting"
        if self.refusal:
            state = "refused"
        elif self.is_resident(standing):
            state = "resident"
        elif held is not None and self.tokens and held.num_saved >= len(self.tokens):
            state = "saved"
        elif is_computing:
            state = "computing"
        num_bytes = 0 if held is None else held.num_bytes
        return Held(self.prefix.name, self.prefix.version, state, self.num_tokens, num_bytes, self.refusal)
