"""Tokens of what is embedded or ranked."""

from __future__ import annotations

import re

import numpy as np

from paddler.errors import ContextExceeded, EngineFailed
from paddler.wire.agent import Encode, Rerank
from workers.agent.llama import Model
from workers.agent.tokens import TokenArray

_PLACE = re.compile(r"(\{query\}|\{document\})")
BYTES_PER_TOKEN = 64
"""A vocabulary that makes one unknown token of a long word, or of many spaces, has no least number of tokens for a
text. One with more bytes a token than this is refused unseen: tokenising takes time in proportion to the length."""


class InputEncoder:
    """Inputs of at most `max_tokens` tokens, those included that the model wants at beginning and end."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def encode(self, payload: Encode, index: int, max_tokens: int) -> TokenArray:
        """Raises `ContextExceeded`, `EngineFailed`."""
        name, text = payload.name_of(index), payload.inputs[index]
        if isinstance(payload, Rerank):
            self._check_length("query", payload.query, max_tokens)
        self._check_length(name, text, max_tokens)
        is_pair = isinstance(payload, Rerank)
        tokens = self._pair(payload.query, text) if is_pair else self._model.tokenize(text, adds_special=True)
        if len(tokens) > max_tokens:
            if isinstance(payload, Rerank) and (alone := len(self._model.tokenize(payload.query))) >= max_tokens:
                raise _too_long("query", f"{alone} tokens", max_tokens)
            raise _too_long(name, f"{len(tokens)} tokens" + " with the query" * is_pair, max_tokens)
        if not len(tokens):
            raise EngineFailed(f"{name} has no token for this model")
        return tokens

    def _pair(self, query: str, document: str) -> TokenArray:
        """As llama-server does it: the model's own template for this, else the two with the tokens that the model has
        for beginning, end and separation. Only those of the template count as control tokens."""
        model = self._model
        if model.rerank_template is not None:
            parts = {"{query}": query, "{document}": document}
            if not (self._has_control(query) or self._has_control(document)):
                return model.tokenize(_PLACE.sub(lambda match: parts[match[0]], model.rerank_template))
            # A document must not write the verdict of the judge. Only then in pieces: a template as a whole has other
            # tokens where text begins and ends.
            pieces = [
                model.tokenize(parts.get(piece, piece), has_control=piece not in parts)
                for piece in _PLACE.split(model.rerank_template)
            ]
            return np.concatenate(pieces)
        end = [model.sep if model.eos < 0 else model.eos] if model.adds_eos else []
        between = [*end, model.sep] if model.adds_sep else end
        texts = [model.tokenize(text, has_control=False) for text in (query, document)]
        begin = [model.bos] if model.adds_bos else []
        own = [np.array(tokens, np.int32) for tokens in (begin, between, end)]
        return np.concatenate([own[0], texts[0], own[1], texts[1], own[2]])

    def _has_control(self, text: str) -> bool:
        """Whether control tokens are written in it."""
        with_control, as_text = (self._model.tokenize(text, has_control=has_control) for has_control in (True, False))
        return not np.array_equal(with_control, as_text)

    def _check_length(self, name: str, text: str, max_tokens: int) -> None:
        num_bytes = len(text.encode("utf-8", "replace"))
        if not self._model.keeps_text:
            if num_bytes > BYTES_PER_TOKEN * max_tokens:
                raise _too_long(name, f"{num_bytes} bytes", max_tokens)
        elif (least := num_bytes // max(self._model.max_piece, 1)) > max_tokens:
            raise _too_long(name, f"at least {least} tokens", max_tokens)


def _too_long(name: str, length: str, max_tokens: int) -> ContextExceeded:
    return ContextExceeded(f"{name} has {length}, but at most {max_tokens} tokens can be embedded", param=name)
