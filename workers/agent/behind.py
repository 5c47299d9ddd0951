"""What is behind the KV cache of one context: host memory, and with a keeper the tiers behind that."""

from __future__ import annotations

from msgspec.structs import replace

from paddler.clock import Clock
from paddler.engine import Saved
from paddler.tier_stats import TierStats
from workers.agent.context import Context
from workers.agent.keeping import Keeping
from workers.agent.named_states import Named
from workers.agent.prefix_cache import PrefixCache
from workers.agent.reading_ahead import ReadingAhead
from workers.agent.restoring import MIN_RESTORED, Piece, Restorer
from workers.agent.saved_states import Kept, SavedStates, State
from workers.agent.scheduler import Scheduler
from workers.agent.sequence import Sequence
from workers.agent.tiers.contract import PUBLIC_SCOPE, Keeper
from workers.agent.tokens import TokenArray

SAVE_S = 0.1
"""What copying of one sequence that leaves the cache may take in a step; what comes behind is computed again, unless a
tier has it. The states of 4,000 tokens of SmolLM2 take 8 ms."""


class Behind:
    """Sequences are those of `tree`; `scratch` is an empty one that is used for nothing else. Host memory takes
    `max_bytes`. `scheduler` knows what computing a token takes. Whatever returns `Kept` tells of whom less is in host
    memory now, or more."""

    def __init__(
        self,
        context: Context,
        tree: PrefixCache,
        clock: Clock,
        scheduler: Scheduler,
        *,
        scratch: int,
        max_bytes: int,
        keeper: Keeper | None,
    ) -> None:
        self._context, self._tree, self._scratch = context, tree, scratch
        self._clock = clock
        self._scheduler = scheduler
        self.states = SavedStates(max_bytes, keeper)
        hit = _not_told if keeper is None else keeper.hit
        self.restorer = Restorer(context, self.states, clock, scheduler, scratch=scratch, hit=hit)
        self._keeper = keeper
        self._ahead: ReadingAhead | None = None
        self._keeping: Keeping | None = None
        if keeper is not None:
            self._ahead = ReadingAhead(keeper, self.states, clock)
            self._keeping = Keeping(keeper, self.states, context, tree, clock, scratch=scratch)

    @property
    def saved(self) -> Saved:
        return Saved(self.states.num_bytes, self.states.num_tokens, self.restorer.num_tokens)

    @property
    def tiers(self) -> tuple[TierStats, ...]:
        """The nearest first. From any thread."""
        own = self.restorer.stats
        return (own,) if self._keeper is None else (own, *self._keeper.stats)

    def state_of(self, name: bytes) -> Named | None:
        """The block of host memory that the fleet calls so. From any thread."""
        return self.states.state_of(name)

    def reach(self, sequence: Sequence, start: int) -> list[Piece]:
        """What leads on from there, if it is worth it."""
        wanted = sequence.tokens[: sequence.work.num_total - 1]
        pieces = self.restorer.reach(sequence.scope, wanted, start)
        found = [] if self._ahead is None else self._ahead.found(sequence.work.key, start)
        if found and (not pieces or found[-1].end >= pieces[-1].end):
            pieces = [replace(one, end=min(one.end, len(wanted))) for one in found]
        return pieces if pieces and pieces[-1].end - start >= MIN_RESTORED else []

    def look(self, sequence: Sequence, at: int) -> tuple[bool, list[Kept]]:
        """Whether the sequence, of which the first `at` tokens are at hand, had better wait for what is being read."""
        if self._ahead is None or self._keeping is None:
            return False, []
        pending_bytes = self.restorer.pending_bytes
        token_s, token_bytes = self._scheduler.prefill_token_s, self._keeping.token_bytes or self.restorer.token_bytes
        return self._ahead.look(sequence, at, token_s=token_s, token_bytes=token_bytes, pending_bytes=pending_bytes)

    def wait(self, timeout_s: float) -> None:
        """If anything is being read."""
        if self._ahead is not None:
            self._ahead.wait(timeout_s)

    @property
    def is_saving(self) -> bool:
        """Whether `keep` has something to do for those that go no further."""
        return self._keeping is not None and self._keeping.is_behind

    @property
    def num_refused(self) -> int:
        """Tokens of what `keep_all` gave that were not taken, because too much is on its way."""
        return 0 if self._keeping is None else self._keeping.num_refused

    def admitted(self, sequence: Sequence) -> None:
        """The sequence has what it will get from here, or that is pending; what it computes is to be kept."""
        key = sequence.work.key
        if self._ahead is not None:
            self._ahead.forget(key)
        if self._keeping is not None:
            self._keeping.begin(key, sequence)

    def shifted(self, key: int) -> None:
        """The sequence has other tokens now, behind its first ones."""
        if self._keeping is not None:
            self._keeping.changed(key)

    def keep(self) -> list[Kept]:
        """Give one block that was computed to the keeper."""
        return [] if self._keeping is None else self._keeping.step()

    def keep_all(self) -> list[Kept]:
        return [] if self._keeping is None else self._keeping.all()

    def parked(self, key: int) -> list[Kept]:
        """The sequence goes no further."""
        self._forget(key)
        return [] if self._keeping is None else self._keeping.park(key)

    def left(self, key: int) -> None:
        """The sequence has left the cache, or never was there."""
        self._forget(key)
        if self._keeping is not None:
            self._keeping.end(key)

    def save(self, key: int, start: int, request_id: str, num_total: int) -> list[Kept]:
        """Into host memory, what of the parked sequence is about to leave: the positions from `start` on."""
        tokens = self._tree.tokens(key)
        is_text = tokens >= 0
        if not is_text.all():
            # An image, or what was moved: nobody finds that again.
            tokens = tokens[: int(is_text.argmin())]
        if len(tokens) <= start:
            return []
        scope = self._tree.scope(key)
        if scope != PUBLIC_SCOPE:
            # What is pinned for everybody is not kept for each, too.
            for part in self.states.reach(PUBLIC_SCOPE, tokens, 0):
                start = max(start, part.end) if self.states.is_pinned(part.block) else start

        until: float | None = None

        def read(first: int, end: int) -> State | None:
            nonlocal until
            now = self._clock.monotonic()
            until = now + SAVE_S if until is None else until
            return self._context.save(key, first, end, self._scratch) if now < until else None

        told = self.states.put(scope, tokens, start, request_id, num_total, read)
        if self._keeper is not None:
            self._offer(self._keeper, scope, tokens, start)
        return told

    def _offer(self, keeper: Keeper, scope: str, tokens: TokenArray, start: int) -> None:
        """What host memory had forgotten, and has again: other agents may read it from there."""
        for part in self.states.reach(scope, tokens, start):
            named = self.states.state_of(part.block.name)
            if named is not None and not keeper.has(named.name):
                keeper.write(named.above, named.tokens, named.state, is_tail=False)

    def _forget(self, key: int) -> None:
        self.restorer.forget(key)
        if self._ahead is not None:
            self._ahead.forget(key)


def _not_told(_tier: str, _num_tokens: int, _saved_s: float) -> None:
    pass
