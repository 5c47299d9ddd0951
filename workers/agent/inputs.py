"""Tokens of what is embedded or ranked."""

from __future__ import annotations

from paddler.errors import ContextExceeded, EngineFailed
from paddler.wire.agent import Embed
from workers.agent.llama import Model
from workers.agent.tokens import TokenArray

BYTES_PER_TOKEN = 64
"""A vocabulary that makes one unknown token of a long word, or of many spaces, has no least number of tokens for a
text. One with more bytes a token than this is refused unseen: tokenising takes time in proportion to the length."""


class InputEncoder:
    """Inputs of at most `max_tokens` tokens, those included that the model wants at beginning and end."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def encode(self, payload: Embed, index: int, max_tokens: int) -> TokenArray:
        """Raises `ContextExceeded`, `EngineFailed`."""
        name, text = payload.name_of(index), payload.inputs[index]
        self._check_length(name, text, max_tokens)
        tokens = self._model.tokenize(text, adds_special=True)
        if len(tokens) > max_tokens:
            raise _too_long(name, f"{len(tokens)} tokens", max_tokens)
        if not len(tokens):
            raise EngineFailed(f"{name} has no token for this model")
        return tokens

    def _check_length(self, name: str, text: str, max_tokens: int) -> None:
        num_bytes = len(text.encode("utf-8", "replace"))
        if not self._model.keeps_text:
            if num_bytes > BYTES_PER_TOKEN * max_tokens:
                raise _too_long(name, f"{num_bytes} bytes", max_tokens)
        elif (least := num_bytes // max(self._model.max_piece, 1)) > max_tokens:
            raise _too_long(name, f"at least {least} tokens", max_tokens)


def _too_long(name: str, length: str, max_tokens: int) -> ContextExceeded:
    return ContextExceeded(f"{name} has {length}, but at most {max_tokens} tokens can be embedded", param=name)
