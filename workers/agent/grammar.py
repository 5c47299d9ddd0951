"""Holding the output of one sequence to its grammar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from paddler.errors import EngineFailed, InvalidField
from paddler.structure.gbnf import ROOT
from workers.agent.characters import tail_of
from workers.agent.llama import LogitArray, Model
from workers.agent.samplers import GrammarState

LIKELY = (256, 4096)
"""How many tokens are compared with the grammar before all are: 49,152 take 30 to 75 ms, as long as several decodes."""


class Constraint:
    """What may come next of an output. Raises `InvalidField` for a grammar that llama.cpp refuses.

    Its state is a function of the tokens accepted. Tokens that give no text are refused, whatever llama.cpp takes their
    names for; those that end the output are allowed when it is complete, and change nothing.
    """

    def __init__(self, gbnf: str, model: Model, root: str = ROOT, pieces: Sequence[bytes] | None = None) -> None:
        """`pieces` are the bytes that each token gives to the text, if not the model's."""
        try:
            self._state = GrammarState(model, gbnf, root)
        except ValueError as error:
            raise InvalidField(f"llama.cpp refuses the grammar: {error}", param="grammar") from None
        self._model = model
        self._pieces = model.pieces if pieces is None else pieces
        self._silent = np.array([token for token in model.silent if not self._pieces[token]], np.int64)
        self._tail = b""
        """The character that the text so far ends within."""
        self.close = self._state.close

    def allows(self, token: int) -> bool:
        piece = self._pieces[token]
        is_heard = token in self._model.end_tokens or bool(piece)
        if (self._tail or not piece.isascii()) and tail_of(self._tail + piece) is None:
            return False
        return is_heard and bool(self._state.allowed(np.array([token]))[0])

    def mask(self, logits: LogitArray, *, min_p: float) -> None:
        """Make every token impossible that may not be next, or that is less than `min_p` times as likely as the
        likeliest that may: those need not be compared with the grammar. 1 keeps one that no other beats."""
        logits[self._silent] = -np.inf
        if not self._tail:
            logits[self._model.broken] = -np.inf
        else:
            partial = [token for token in self._model.partial if tail_of(self._tail + self._pieces[token]) is not None]
            values = logits[partial]
            logits.fill(-np.inf)
            logits[partial] = values
        for size in LIKELY:
            if size >= len(logits) or not min_p:
                break
            likely = np.argpartition(logits, -size)[-size:]
            values = logits[likely]
            allowed = self._state.allowed(likely)
            if allowed.any() and values.min() <= values[allowed].max() + math.log(min_p):
                logits.fill(-np.inf)
                logits[likely[allowed]] = values[allowed]
                return
        logits[~self._state.allowed(np.arange(len(logits)))] = -np.inf

    def accept(self, tokens: Iterable[int]) -> None:
        """Raises `EngineFailed` for a token that may not be next: llama.cpp would end the process."""
        for token in tokens:
            if not self.allows(token):
                raise EngineFailed("the output does not follow its grammar")
            if token not in self._model.end_tokens:
                self._state.accept(token)
                if self._tail or not self._pieces[token].isascii():
                    self._tail = tail_of(self._tail + self._pieces[token]) or b""
