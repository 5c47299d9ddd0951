"""Choosing one token from logits, as one request asks: penalties -> top_k -> top_p -> min_p -> temperature -> draw.

A request that moves to another agent must go on as if nothing had happened, so nothing here depends on how
often a generator was used: token `n` of the output is drawn with a seed made of (seed, n); the penalties
and the state of a grammar are a function of the tokens accepted so far.

A grammar is asked about the one token that was drawn; only when it refuses it, it is asked about others, and the draw
is repeated among those it allows (as llama.cpp's `common_sampler` does).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from paddler.errors import EngineFailed
from paddler.wire.agent import Sampling
from workers.agent.grammar import Constraint
from workers.agent.llama import Context, LogitArray, SamplerChain

_GREEDY_BELOW = 1e-4  # dividing logits by less than this overflows to infinity
_AGAIN = 1 << 31  # beyond any position
_MASK64 = (1 << 64) - 1


class Sampler:
    """The sampling state of one sequence. `accept` every output token, also those of an earlier attempt."""

    def __init__(
        self, sampling: Sampling, *, suppressed: tuple[int, ...] = (), constraint: Constraint | None = None
    ) -> None:
        self._constraint = constraint
        self._min_p = sampling.min_p
        self._seed = sampling.seed
        self._penalties = Penalties(sampling) if has_penalties(sampling) else None
        self._suppressed = np.array(suppressed, np.int64)
        self._chain: SamplerChain | None = None
        if sampling.temperature >= _GREEDY_BELOW:
            self._chain = SamplerChain(
                top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p, temperature=sampling.temperature
            )

    def accept(self, tokens: Sequence[int]) -> None:
        """Raises `EngineFailed` for tokens that the grammar does not allow."""
        if self._penalties is not None:
            for token in tokens:
                self._penalties.accept(token)
        if self._constraint is not None:
            self._constraint.accept(tokens)

    def draw(self, context: Context, index: int, logits: LogitArray, n: int) -> int:
        """Token `n` of the output, from the logits of the batch's token `index`; `logits` is their row, which
        is changed. Does not accept it. Raises `EngineFailed` when the grammar allows none."""
        if len(self._suppressed):
            logits[self._suppressed] = -np.inf
        if self._penalties is not None:
            self._penalties.apply(logits)
        token = self._choose(context, index, logits, n)
        if self._constraint is None or self._constraint.allows(token):
            return token
        self._constraint.mask(logits, min_p=self._min_p if self._chain is not None else 1.0)
        # Another random number: the first one has led to a token that is not there any more, and would lead to those
        # near to it more often than to others.
        token = self._choose(context, index, logits, n | _AGAIN)
        if not self._constraint.allows(token):
            raise EngineFailed("this model has no token that the grammar allows here")
        return token

    def _choose(self, context: Context, index: int, logits: LogitArray, n: int) -> int:
        if self._chain is None:
            return int(logits.argmax())
        self._chain.reseed(position_seed(self._seed, n))
        return context.sample(self._chain, index)

    def close(self) -> None:
        if self._constraint is not None:
            self._constraint.close()
        if self._chain is not None:
            self._chain.close()


class Penalties:
    """Repeat, frequency and presence penalties over the last `penalty_last_n` accepted tokens (-1: all).

    The formulas are those of llama.cpp's sampler, which looks every candidate up in a hash map (0.26 ms a token
    with 49,152 candidates); here only the tokens that occurred are touched (about 0.02 ms).
    """

    def __init__(self, sampling: Sampling) -> None:
        self._repeat = sampling.penalty_repeat
        self._frequency = sampling.penalty_frequency
        self._presence = sampling.penalty_presence
        self._window: deque[int] | None = deque() if sampling.penalty_last_n >= 0 else None
        self._window_size = sampling.penalty_last_n
        self._place: dict[int, int] = {}
        self._tokens = np.zeros(256, np.int64)
        self._counts = np.zeros(256, np.float32)

    def accept(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._tokens[place] = token
        self._counts[place] += 1
        if self._window is not None:
            self._window.append(token)
            if len(self._window) > self._window_size:
                self._forget(self._window.popleft())

    def apply(self, logits: LogitArray) -> None:
        num = len(self._place)
        tokens = self._tokens[:num]
        values = logits[tokens]
        values = np.where(values <= 0, values * self._repeat, values / self._repeat)
        logits[tokens] = values - (self._counts[:num] * self._frequency + self._presence)

    def _forget(self, token: int) -> None:
        place = self._place[token]
        self._counts[place] -= 1
        if self._counts[place] == 0:
            last = len(self._place) - 1
            moved = int(self._tokens[last])
            self._tokens[place], self._counts[place] = moved, self._counts[last]
            self._place[moved] = place
            self._counts[last] = 0
            del self._place[token]


def has_penalties(sampling: Sampling) -> bool:
    neutral = (sampling.penalty_repeat, sampling.penalty_frequency, sampling.penalty_presence) == (1, 0, 0)
    return sampling.penalty_last_n != 0 and not neutral


def position_seed(seed: int, n: int) -> int:
    """32-bit seed of the draw at output position `n` (splitmix64, public domain, by Sebastiano Vigna)."""
    mixed = ((seed << 32 | n) + 0x9E3779B97F4A7C15) & _MASK64
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK64
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK64
    return (mixed ^ mixed >> 31) >> 32
