"""One job of the embedder: its inputs, from tokens to vectors."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from paddler.engine import Done, Job
from paddler.wire.agent import Encode
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.llama import Pooling
from workers.agent.tokens import TokenArray


class Text(Struct):
    """One input. `num_done` of its tokens are computed, `pooled` is what came of them; `key` is its sequence id, None
    before it is begun."""

    tokens: TokenArray
    key: int | None = None
    num_done: int = 0
    pooled: NDArray[np.float64] | None = None

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - self.num_done

    def add(self, part: NDArray[np.float64], num_tokens: int, pooling: Pooling) -> None:
        """Put together what llama.cpp has pooled of the next tokens with what it has of those before."""
        if self.pooled is None:
            self.pooled = part
        elif pooling is Pooling.MEAN:
            self.pooled += (part - self.pooled) * (num_tokens / (self.num_done + num_tokens))
        elif pooling is not Pooling.CLS:
            # The last token's; also of a classifier, as only a causal model's inputs are computed in parts.
            self.pooled = part
        self.num_done += num_tokens


class Task:
    """One job. `texts` are the inputs that have tokens and no vector yet."""

    def __init__(self, job: Job, payload: Encode, now: float) -> None:
        self.job = job
        self.payload = payload
        self.texts: list[Text] = []
        self.is_checked = False
        self.num_prepared = len(job.embedded)
        self.num_tokens = list(job.embedded)
        """Of each input whose vector is out."""
        self.said_at = now
        self.turn = 0
        """The number of the last decode it had a part in."""

    @property
    def is_prepared(self) -> bool:
        return self.is_checked and self.num_prepared >= len(self.payload.inputs)

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=sum(self.num_tokens))

    def done(self, reason: FinishReason) -> Done:
        return Done(self.job.request_id, reason, self.usage)
