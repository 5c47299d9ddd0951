"""How likely the model held a token to be, and which it held likeliest."""

from __future__ import annotations

import math

import numpy as np

from paddler.wire.balancer import TokenLogprob
from workers.agent.llama import LogitArray, Model


def token_logprob(logits: LogitArray, token: int, num_top: int, model: Model) -> TokenLogprob:
    """From the model's own logits, before anything that the request asks of sampling."""
    best = float(logits.max())
    norm = best + math.log(float(np.exp(logits - best).sum(dtype=np.float64)))
    top: tuple[tuple[bytes, float], ...] = ()
    if num_top:
        likeliest = np.argpartition(logits, -num_top)[-num_top:]
        ordered: list[int] = likeliest[np.argsort(-logits[likeliest], kind="stable")].tolist()
        top = tuple((model.pieces[at] or model.piece(at, special=True), float(logits[at]) - norm) for at in ordered)
    return TokenLogprob(model.pieces[token], float(logits[token]) - norm, top)
