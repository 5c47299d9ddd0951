"""Choosing one token from logits, as one request asks, in llama.cpp's order: bias -> penalties -> dry -> top_n_sigma ->
top_k -> typical_p -> top_p -> min_p -> xtc -> temperature -> draw, or greedy, or mirostat after the first three.

A request that moves to another agent must go on as if nothing had happened, so nothing here depends on how
often a generator was used: token `n` of the output is drawn with a seed made of (seed, n); the penalties
and the state of a grammar are a function of the tokens accepted so far. What is not, mirostat's `mu`, travels with the
tokens.

A grammar is asked about the one token that was drawn; only when it refuses it, it is asked about others, and the draw
is repeated among those it allows (as llama.cpp's `common_sampler` does).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np

from paddler.errors import EngineFailed
from paddler.wire.agent import Sampling
from workers.agent.bias import Bias, has_bias
from workers.agent.context import Context
from workers.agent.dry import Dry, has_dry
from workers.agent.grammar import Constraint
from workers.agent.llama import LogitArray, Model
from workers.agent.samplers import GREEDY_BELOW, Mirostat, SamplerChain
from workers.agent.tokens import TokenArray

_AGAIN = 1 << 30  # beyond any position
_MASK64 = (1 << 64) - 1
_XTC = 1 << 31  # added to the position, so that xtc does not see the number of the draw


class Sampler:
    """The sampling state of one sequence. `accept` every output token, also those of an earlier attempt; `mu` is what
    that left behind. `max_tokens` bounds prompt and output. Raises `InvalidField` for what the model cannot do."""

    def __init__(
        self,
        sampling: Sampling,
        model: Model,
        *,
        prompt: TokenArray,
        max_tokens: int,
        mu: float | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self._constraint = constraint
        self._seed = sampling.seed
        self._bias = Bias(sampling, model) if has_bias(sampling, model) else None
        self._penalties = Penalties(sampling) if has_penalties(sampling) else None
        self._dry: Dry | None = None
        if has_dry(sampling):
            self._dry = Dry(sampling, partial(model.piece, special=True), max_tokens=max_tokens)
            self._dry.accept(prompt.tolist())
        self._chain: SamplerChain | None = None
        self._mirostat: Mirostat | None = None
        if sampling.mirostat and sampling.temperature >= GREEDY_BELOW:
            self._mirostat = Mirostat(sampling, model.vocab_size, mu)
        elif sampling.temperature + sampling.dynatemp_range >= GREEDY_BELOW:
            self._chain = SamplerChain(sampling)
        self._least_ratio = 1.0
        """Of the likeliest token's probability: what is less likely is not drawn. 1: greedy."""
        if self._mirostat is not None:
            self._least_ratio = 0.0
        elif self._chain is not None:
            self._least_ratio = sampling.min_p if sampling.min_keep <= 1 else 0.0

    @property
    def mu(self) -> float | None:
        return None if self._mirostat is None else self._mirostat.mu

    def accept(self, tokens: Sequence[int]) -> None:
        """Raises `EngineFailed` for tokens that the grammar does not allow."""
        if self._penalties is not None:
            for token in tokens:
                self._penalties.accept(token)
        if self._dry is not None:
            self._dry.accept(tokens)
        if self._constraint is not None:
            self._constraint.accept(tokens)

    def draw(self, context: Context, index: int, logits: LogitArray, n: int) -> int:
        """Token `n` of the output, from the logits of the batch's token `index`; `logits` is their row, which
        is changed. Does not accept it. Raises `EngineFailed` when the grammar allows none."""
        if self._bias is not None:
            self._bias.apply(logits)
        if self._penalties is not None:
            self._penalties.apply(logits)
        if self._dry is not None:
            self._dry.apply(logits)
        mu = self.mu
        token = self._choose(context, index, logits, n)
        if self._constraint is None or self._constraint.allows(token):
            return token
        self._constraint.mask(logits, min_p=self._least_ratio)
        if self._mirostat is not None and mu is not None:
            self._mirostat.mu = mu
        # Another random number: the first one has led to a token that is not there any more, and would lead to those
        # near to it more often than to others.
        token = self._choose(context, index, logits, n | _AGAIN)
        if not self._constraint.allows(token):
            raise EngineFailed("this model has no token that the grammar allows here")
        return token

    def _choose(self, context: Context, index: int, logits: LogitArray, n: int) -> int:
        if self._mirostat is not None:
            return self._mirostat.draw(logits, position_seed(self._seed, n))
        if self._chain is None:
            return int(logits.argmax())
        xtc = position_seed(self._seed, n + _XTC) if self._chain.has_xtc else 0
        self._chain.reseed(position_seed(self._seed, n), xtc)
        return context.sample(self._chain.pointer, index)

    def close(self) -> None:
        if self._constraint is not None:
            self._constraint.close()
        if self._chain is not None:
            self._chain.close()
        if self._mirostat is not None:
            self._mirostat.close()


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
