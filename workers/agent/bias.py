"""What a request, or the model's author, adds to the logits of some tokens."""

from __future__ import annotations

import numpy as np

from paddler.errors import InvalidField
from paddler.payload import BAN
from paddler.wire.agent import Sampling
from workers.agent.llama import LogitArray, Model


class Bias:
    """`logit_bias`, `ignore_eos` and the model's suppressed tokens. Raises `InvalidField` for tokens it has not."""

    def __init__(self, sampling: Sampling, model: Model) -> None:
        added: dict[int, float] = {}
        banned = set(model.suppressed)
        if sampling.ignore_eos:
            banned |= model.end_tokens
        for entry, bias in sampling.logit_bias:
            for token in _tokens(entry, model):
                if bias <= BAN:
                    banned.add(token)
                else:
                    added[token] = added.get(token, 0.0) + bias
        if len(banned) >= model.vocab_size:
            raise InvalidField("logit_bias bans every token", param="logit_bias")
        self._banned = np.array(sorted(banned), np.int64)
        self._tokens = np.array(list(added), np.int64)
        self._values = np.array(list(added.values()), np.float32)

    def apply(self, logits: LogitArray) -> None:
        logits[self._tokens] += self._values
        logits[self._banned] = -np.inf


def has_bias(sampling: Sampling, model: Model) -> bool:
    return bool(sampling.logit_bias or sampling.ignore_eos or model.suppressed)


def _tokens(entry: int | str, model: Model) -> list[int]:
    if isinstance(entry, str):
        return model.tokenize(entry).tolist()
    if entry >= model.vocab_size:
        raise InvalidField(
            f"logit_bias names token {entry}, but this model has {model.vocab_size} tokens", param="logit_bias"
        )
    return [entry]
