"""Raw prompts that are not one text: tokens, and two texts with a gap between them that is to be filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddler.errors import InvalidField
from workers.agent.llama import Model, lib
from workers.agent.tokens import TokenArray


def known_tokens(model: Model, ids: Sequence[int]) -> TokenArray:
    """Raises `InvalidField` for what is no token of the model."""
    for index, token in enumerate(ids):
        if not 0 <= token < model.vocab_size:
            raise InvalidField(
                f"`prompt`: token {token} at {index} is none of this model's, which go to {model.vocab_size - 1}.",
                param="prompt",
            )
    return np.array(ids, np.int32)


def around_gap(model: Model, before: str, behind: str, *, name: str) -> TokenArray:
    """Prefix, suffix, middle (PSM in Bavarian et al., "Efficient Training of Language Models to Fill in the Middle",
    2022): what is generated next is the text between. Control tokens written in the texts are text. Raises
    `InvalidField` when the vocabulary has no tokens for it."""
    finds = (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
    marks = [int(find(model.vocab)) for find in finds]
    if min(marks) < 0:
        raise InvalidField(
            f"{name} was not made to fill in: its vocabulary has no tokens for what is before and behind a gap; leave "
            "`suffix` out, or choose a model for code that has them.",
            param="suffix",
        )
    begin, end, gap = (np.array([mark], np.int32) for mark in marks)
    prefix, suffix = (model.tokenize(text, has_control=False) for text in (before, behind))
    return np.concatenate([begin, prefix, end, suffix, gap])
