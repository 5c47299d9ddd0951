"""Giving what was computed to the keeper, a block a step, so that it outlives its sequence and this agent.

Full blocks of running sequences go as they are computed, into host memory and to the tiers. What is left of a sequence,
and its incomplete last block, goes when it is parked or the agent leaves. A killed agent's requests find all but that.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from paddler.clock import Clock
from workers.agent.context import Context
from workers.agent.prefix_cache import PrefixCache
from workers.agent.restoring import MIN_RESTORED
from workers.agent.saved_states import BLOCK, Kept, SavedStates, State
from workers.agent.sequence import Sequence
from workers.agent.tiers.contract import PUBLIC_SCOPE, Keeper
from workers.agent.tiers.names import place_of
from workers.agent.tokens import TokenArray

PARK_S = 0.03
"""What saving the blocks that a sequence still lacks may take when it is parked, of SmolLM2 so many as of 5,000 tokens;
more in the steps that follow."""
RETRY_S = 0.25
"""After the keeper has dropped a block, because too much was on its way."""


class _Chain(Struct, eq=False):
    """How far a sequence is kept: up to position `end`, a multiple of a block, which the block named `above` ends at.
    `public` is its name in the public scope, as long as all so far are kept there. The first `num_prompt` tokens are
    what the request has asked."""

    scope: str
    request_id: str
    num_prompt: int
    end: int = 0
    above: bytes = b""
    public: bytes = b""
    retry_at: float = 0.0
    is_pinned: bool = False
    is_parked: bool = False


class Keeping:
    """Of one context. Sequences are those of `tree`, from `begin` to `end`."""

    def __init__(
        self, keeper: Keeper, saved: SavedStates, context: Context, tree: PrefixCache, clock: Clock, *, scratch: int
    ) -> None:
        self._keeper = keeper
        self._saved = saved
        self._context = context
        self._tree = tree
        self._clock = clock
        self._scratch = scratch
        self._chains: dict[int, _Chain] = {}
        self.num_refused = 0
        self.token_bytes = 0.0
        """What the state of a token has, as measured; 0: not yet."""

    @property
    def is_behind(self) -> bool:
        """Whether a parked sequence may have more to keep now."""
        return any(chain.is_parked and not self._is_waiting(chain) for chain in self._chains.values())

    def begin(self, key: int, sequence: Sequence) -> None:
        """This sequence may have blocks from now on."""
        job = sequence.job
        self._chains[key] = _Chain(sequence.scope, job.request_id, sequence.num_prompt, is_pinned=job.is_pinned)

    def changed(self, key: int) -> None:
        """It has other tokens from now on, behind its first ones: what was kept is not what leads to these."""
        if (chain := self._chains.get(key)) is not None:
            chain.end, chain.above, chain.public, chain.retry_at, chain.num_prompt = 0, b"", b"", 0.0, 0

    def end(self, key: int) -> None:
        """It has left the cache."""
        self._chains.pop(key, None)

    def step(self) -> list[Kept]:
        """Save one block, if any was computed that is not saved yet. Tells of whom less is in host memory now."""
        for key, chain in self._chains.items():
            if self._has_more(key, chain):
                # The next one's turn comes before its own.
                self._chains[key] = self._chains.pop(key)
                return self._keep(key, chain)
            if chain.is_parked and not self._is_waiting(chain):
                del self._chains[key]
                return self._keep_tail(key, chain)
        return []

    def park(self, key: int) -> list[Kept]:
        """This sequence goes no further."""
        chain = self._chains.get(key)
        if chain is None:
            return []
        chain.is_parked = True
        told = self._keep_all(key, chain, self._clock.monotonic() + PARK_S)
        if not self._has_more(key, chain) and not self._is_waiting(chain):
            del self._chains[key]
            told += self._keep_tail(key, chain)
        return told

    def all(self) -> list[Kept]:
        """Save what there is of all sequences, of running ones first. `num_refused` tells how many tokens the keeper
        did not take, because too much is on its way."""
        told: list[Kept] = []
        self.num_refused = 0
        for key, chain in sorted(self._chains.items(), key=lambda item: item[1].is_parked):
            chain.retry_at = 0.0
            told += self._keep_all(key, chain)
            if not self._is_waiting(chain):
                told += self._keep_tail(key, chain, is_last=True)
            if 0 < chain.retry_at < inf:
                self.num_refused += self._tree.length(key) - chain.end
        return told

    def _keep_all(self, key: int, chain: _Chain, until: float = inf) -> list[Kept]:
        told: list[Kept] = []
        while self._has_more(key, chain) and self._clock.monotonic() < until:
            told += self._keep(key, chain)
        return told

    def _is_waiting(self, chain: _Chain) -> bool:
        return chain.retry_at > self._clock.monotonic()

    def _has_more(self, key: int, chain: _Chain) -> bool:
        """Whether there is a full block that is not kept and may be now. Passes over those that are."""
        num_tokens = self._tree.length(key)
        if num_tokens - chain.end < BLOCK or self._is_waiting(chain):
            return False
        tokens = self._tree.tokens(key)
        if not chain.above:
            chain.above = self._keeper.root(chain.scope)
            chain.public = self._keeper.root(PUBLIC_SCOPE) if chain.scope != PUBLIC_SCOPE else b""
        while chain.above and num_tokens - chain.end >= BLOCK:
            own = tokens[chain.end : chain.end + BLOCK]
            if own.min() < 0:
                return False  # an image, or what was moved: nobody finds that again
            public = self._keeper.next(chain.public, own) if chain.public else b""
            public = public if public and self._keeper.has(public) else b""
            name = self._keeper.next(chain.above, own)
            if not public and not self._keeper.has(name):
                return True
            chain.end, chain.above, chain.public = chain.end + BLOCK, name, public
        return False

    def _keep(self, key: int, chain: _Chain) -> list[Kept]:
        tokens, start, end = self._tree.tokens(key), chain.end, chain.end + BLOCK
        name = self._keeper.next(chain.above, tokens[start:end])
        named, told = self._saved.state_of(name), list[Kept]()
        state = None if named is None else named.state
        if state is None:
            state = self._read(key, start, end)
            if state is None:
                chain.retry_at = inf
                return []

            def read(first: int, last: int) -> State | None:
                return state if (first, last) == (start, end) else None

            told = self._saved.add(chain.scope, tokens[:end], start, read)
        if self._write(chain, chain.above, tokens[start:end], state, is_tail=False):
            chain.end, chain.above, chain.public = end, name, b""
        else:
            chain.retry_at = self._clock.monotonic() + RETRY_S
        return told

    def _keep_tail(self, key: int, chain: _Chain, *, is_last: bool = False) -> list[Kept]:
        """`is_last`: another agent goes on with it."""
        own = self._tree.tokens(key)[chain.end :]
        if not chain.above:
            chain.above = self._keeper.root(chain.scope)
        if not chain.above or not MIN_RESTORED <= len(own) < BLOCK or own.min() < 0:
            return []
        above = chain.above
        if is_last and not chain.is_parked and self._tree.length(key) > chain.num_prompt:
            # Behind one block are the tails of all that ask the same: only one would be there for all of them.
            above = self._keeper.next(above, place_of(chain.request_id))
        if self._keeper.has(self._keeper.next(above, own)):
            return []
        state, told = self._tail_state(key, chain)
        if state is not None and not self._write(chain, above, own, state, is_tail=True):
            chain.retry_at = self._clock.monotonic() + RETRY_S
        return told

    def _tail_state(self, key: int, chain: _Chain) -> tuple[State | None, list[Kept]]:
        """In host memory: where no tier is written to, the keeper has what that has."""
        tokens, start, made = self._tree.tokens(key), chain.end, list[State]()

        def read(first: int, last: int) -> State | None:
            state = self._read(key, first, last)
            made.extend([] if state is None else [state])
            return state

        told = self._saved.add(chain.scope, tokens, start, read)
        parts = self._saved.reach(chain.scope, tokens, start)
        if not made and parts and (parts[-1].block.start, parts[-1].block.end) == (start, len(tokens)):
            return parts[-1].block.state, told
        # Of one that goes on behind it, host memory has too much.
        return made[0] if made else self._read(key, start, len(tokens)), told

    def _read(self, key: int, start: int, end: int) -> State | None:
        state = self._context.save(key, start, end, self._scratch)
        if state is not None:
            self.token_bytes = state.nbytes / (end - start)
        return state

    def _write(self, chain: _Chain, above: bytes, tokens: TokenArray, state: State, *, is_tail: bool) -> bool:
        return self._keeper.write(above, tokens.copy(), state, is_tail=is_tail, is_pinned=chain.is_pinned)
