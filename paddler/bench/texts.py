"""Texts of a wanted number of tokens, drawn from seeds: the same seed and name, the same text on every machine."""

from __future__ import annotations

import random
from functools import lru_cache

# Short and common: with a space before it each is one token in most vocabularies. What it is in the one at hand is
# measured, see `preflight.py`.
WORDS = tuple(
    """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then them
these so some her would make like him into time has look two more write go see number no way could people my than
first water been call who oil its now find long down day did get come made may part over new sound take only little
work know place year live me back give most very after thing our just name good man think say great where help through
much before line right too mean old any same tell boy follow came want show also around form three small set put end
does another well large must big even such because turn here why ask went men read need land different home us move
try kind hand picture again change off play spell air away animal house point page letter mother answer found study
still learn should world high every near add food between own below country plant last school father keep tree never
start city earth eye light thought head under story saw left few while along might close something seem next hard open
example begin life always
""".split()  # noqa: SIM905  # a list of words is a text here
)


class Texts:
    """`tokens_per_word` is the model's."""

    def __init__(self, seed: int, tokens_per_word: float) -> None:
        self._seed = seed
        self._tokens_per_word = tokens_per_word
        self.shared = lru_cache(maxsize=4096)(self.text)
        """The same as `text`, for what is asked for again: the blocks of a trace."""

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")

    def text(self, name: str, num_tokens: int) -> str:
        """One that nothing else of this seed begins with, but for chance in its first words."""
        return self.drawn(self.rng(name), num_tokens)

    def drawn(self, rng: random.Random, num_tokens: int) -> str:
        return " ".join(rng.choices(WORDS, k=max(1, round(num_tokens / self._tokens_per_word))))
