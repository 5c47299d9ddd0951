"""One embedding or ranking job of the scripted engine. The vector of a text is a function of the text alone, so
`vector_of` can tell what any answer must be; texts that have words in common are closer to each other than those that
have not. A document's score is how many of the query's words it has: `score_of`."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from paddler.engine import Done, Embedded, Job
from paddler.errors import ContextExceeded, EngineFailed
from paddler.payload import vector_size
from paddler.testing.script import faults_of
from paddler.vectors import check_earlier_size, pack_vector
from paddler.wire.agent import Encode, Rerank
from paddler.wire.balancer import FinishReason, Usage

DIMENSIONS = 32


class EmbedScript:
    """One running job: an input a step. Its tokens are its words. Raises `PaddlerError` for one that cannot run."""

    def __init__(self, job: Job, payload: Encode, context_size: int) -> None:
        self.job = job
        self._payload = payload
        check_earlier_size(job, vector_size(payload, DIMENSIONS))
        self._query = payload.query if isinstance(payload, Rerank) else ""
        for index, text in enumerate(payload.inputs):
            if (num_tokens := self._count(text)) > context_size:
                name = payload.name_of(index)
                raise ContextExceeded(
                    f"{name} has {num_tokens} tokens, but at most {context_size} can be embedded", param=name
                )
        text = "\n".join(payload.inputs)
        if "[[fail]]" in text:
            raise EngineFailed("the input says [[fail]]")
        self.faults = faults_of(text, is_resumed=bool(job.embedded))
        self._num_tokens = list(job.embedded)

    @property
    def num_output(self) -> int:
        """How many inputs are done."""
        return len(self._num_tokens)

    @property
    def is_finished(self) -> bool:
        return self.num_output >= len(self._payload.inputs)

    def next(self) -> Embedded:
        text = self._payload.inputs[self.num_output]
        self._num_tokens.append(self._count(text))
        scored = np.array([score_of(self._query, text)])
        vector = pack_vector(scored if isinstance(self._payload, Rerank) else vector_of(text), self._payload)
        return Embedded(self.job.request_id, (vector,), (self._num_tokens[-1],))

    def _count(self, text: str) -> int:
        return len(self._query.split()) + len(text.split())

    def done(self, reason: FinishReason) -> Done:
        return Done(self.job.request_id, reason, Usage(prompt_tokens=sum(self._num_tokens)))


def score_of(query: str, document: str) -> float:
    return float(len(set(query.split()) & set(document.split())))


def vector_of(text: str) -> NDArray[np.float64]:
    """What a scripted engine answers for a text, of length 1."""
    vector = np.zeros(DIMENSIONS)
    for word in text.split():
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=DIMENSIONS).digest()
        vector += np.frombuffer(digest, np.uint8) - 127.5
    return vector / (np.linalg.norm(vector) or 1.0)
