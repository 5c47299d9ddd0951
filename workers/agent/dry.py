"""DRY ("don't repeat yourself"): a token that would go on with a repetition is made less likely, the more the longer
that is already. The idea is p-e-w's, the definition that of llama.cpp's sampler.

Ours finds breakers in the text: llama.cpp's looks through its vocabulary for every way to cut one into tokens, which
takes 30 ms for the default four and 8.6 s for sixteen of 25 characters, and all that time no stream gets a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from paddler.wire.agent import Sampling
from workers.agent.llama import LogitArray
from workers.agent.tokens import TokenArray

_FLOAT_MAX = 3.4e38
_FLOAT_MAX_LOG = 88.7228391


class Dry:
    """The last tokens of a sequence, and how long a repetition each of them ends.

    `piece` gives a token's bytes, control tokens written out. `max_tokens` is what `dry_penalty_last_n` -1 means."""

    def __init__(self, sampling: Sampling, piece: Callable[[int], bytes], *, max_tokens: int) -> None:
        last_n = sampling.dry_penalty_last_n
        self._window = max_tokens if last_n < 0 else min(last_n, max_tokens)
        self._multiplier = sampling.dry_multiplier
        self._base = sampling.dry_base
        self._allowed = sampling.dry_allowed_length
        # Beyond it `base ** n` is no float32.
        self._max_exponent = int(_FLOAT_MAX_LOG / math.log(self._base)) if self._base > 1.000001 else 0
        self._breakers = tuple(text.encode() for text in sampling.dry_sequence_breakers)
        self._piece = piece
        self._tail = b""
        self._since_breaker = 0
        self._tokens = np.zeros(0, np.int32)
        self._lengths = np.zeros(0, np.int64)
        """Of every token but the last: how many tokens up to it are also the last ones of all."""

    def accept(self, tokens: Sequence[int]) -> None:
        if not tokens:
            return
        for token in tokens[-self._window :]:
            self._note_breaker(self._piece(token))
        if len(tokens) == 1:
            self._extend(tokens[0])
        else:
            self._tokens = np.concatenate([self._tokens, np.array(tokens, np.int32)])[-self._window :]
            self._lengths = suffix_lengths(self._tokens)

    def apply(self, logits: LogitArray) -> None:
        """Penalise, in place."""
        limit = min(self._since_breaker, len(self._tokens))
        if len(self._tokens) <= self._allowed or limit < self._allowed:
            return
        lengths = np.minimum(self._lengths, limit)
        goes_on = np.flatnonzero(lengths >= self._allowed)
        longest: dict[int, int] = {}
        for token, length in zip(self._tokens[goes_on + 1].tolist(), lengths[goes_on].tolist(), strict=True):
            longest[token] = max(length, longest.get(token, 0))
        for token, length in longest.items():
            if not self._has_breaker(self._piece(token)):
                exponent = length - self._allowed
                if self._max_exponent:
                    exponent = min(exponent, self._max_exponent)
                logits[token] -= np.float32(min(self._multiplier * self._base**exponent, _FLOAT_MAX))

    def _extend(self, token: int) -> None:
        before = np.concatenate([np.zeros(1, np.int64), self._lengths])[: len(self._tokens)]
        self._lengths = np.where(self._tokens == token, before + 1, 0)
        self._tokens = np.append(self._tokens, np.int32(token))
        if len(self._tokens) > self._window:
            self._tokens, self._lengths = self._tokens[1:], self._lengths[1:]
            np.minimum(self._lengths, np.arange(1, len(self._lengths) + 1), out=self._lengths)

    def _note_breaker(self, piece: bytes) -> None:
        """A breaker counts where it ends, however many tokens it is spread over."""
        text = self._tail + piece
        before = len(self._tail)
        if any(text.find(breaker, max(before - len(breaker) + 1, 0)) >= 0 for breaker in self._breakers):
            self._since_breaker = 0
        else:
            self._since_breaker += 1
        longest = max(map(len, self._breakers), default=1)
        self._tail = text[len(text) - longest + 1 :] if len(text) >= longest else text

    def _has_breaker(self, piece: bytes) -> bool:
        return any(breaker in piece for breaker in self._breakers)


def suffix_lengths(tokens: TokenArray) -> NDArray[np.int64]:
    """Of every token but the last, how many tokens up to it are also the last ones: the Z-algorithm, backwards."""
    reverse = tokens[::-1].tolist()
    size = len(reverse)
    lengths = [0] * size
    left = right = 0
    for at in range(1, size):
        length = min(lengths[at - left], right - at) if at < right else 0
        while at + length < size and reverse[length] == reverse[at + length]:
            length += 1
        lengths[at] = length
        if at + length > right:
            left, right = at, at + length
    return np.array(lengths[:0:-1], np.int64)


def has_dry(sampling: Sampling) -> bool:
    return sampling.dry_multiplier > 0 and sampling.dry_penalty_last_n != 0
