"""The decodes of one step: one for tokens, and one for images, which reach llama.cpp as rows in place of tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from paddler.clock import Clock
from paddler.engine import ModelError
from workers.agent.context import Batch, Context, Decoded
from workers.agent.mtmd import Projector, RowBatch
from workers.agent.scheduler import Chunk, Plan
from workers.agent.sequence import Sequence

WARM_UP_TOKENS = 32


class Part(Struct, frozen=True):
    """Chunks for one decode; `batch` is what they are filled into."""

    chunks: tuple[Chunk, ...]
    batch: Batch


class Batches:
    """`projector` None: there are no images."""

    def __init__(self, context: Context, projector: Projector | None) -> None:
        self._context = context
        self._projector = projector
        self._rows = None if projector is None else RowBatch(context.max_batch, projector)

    def parts(self, plan: Plan, sequences: Mapping[int, Sequence]) -> list[Part]:
        """Tokens first: those who wait for one wait for no image. Of a sequence that was given more cells than it was
        planned with, by one admitted just before it, only what is left."""
        planned = tuple(_left(sequences[one.key], one) for one in plan.chunks)
        if self._rows is None:
            return [Part(planned, self._context.batch)]
        # A sequence that was given fewer cells than it was planned with goes on in the next step.
        chunks = [one for one in planned if _is_within_run(sequences[one.key], one)]
        texts = tuple(one for one in chunks if sequences[one.key].picture is None)
        images = tuple(one for one in chunks if sequences[one.key].picture is not None)
        return [part for part in (Part(texts, self._context.batch), Part(images, self._rows)) if part.chunks]

    def fill(self, part: Part, sequences: Mapping[int, Sequence]) -> list[tuple[int, int]]:
        """Fill the batch; returns sequence and batch index of every token whose logits are wanted."""
        part.batch.clear()
        outputs: list[tuple[int, int]] = []
        for chunk in part.chunks:
            sequence = sequences[chunk.key]
            is_last = chunk.num_tokens == sequence.work.num_pending
            if isinstance(part.batch, RowBatch):
                index = self._add_rows(part.batch, sequence, chunk, wants_logits=is_last)
            else:
                tokens = sequence.pending(chunk.num_tokens)
                index = part.batch.add(tokens, sequence.position, chunk.key, wants_logits=is_last)
            if is_last:
                outputs.append((chunk.key, index))
        return outputs

    def decode(self, part: Part) -> Decoded:
        if self._projector is None or part.batch is not self._rows:
            return self._context.decode()
        return self._context.decode_rows(part.batch, is_causal=self._projector.is_causal)

    def _add_rows(self, batch: RowBatch, sequence: Sequence, chunk: Chunk, *, wants_logits: bool) -> int:
        picture = sequence.picture
        assert self._projector is not None
        assert picture is not None
        assert picture.rows is not None
        start = sequence.work.num_cached - picture.start
        wanted = slice(start, start + chunk.num_tokens)
        positions = self._projector.positions(picture.chunk, sequence.pictures.position(picture.start))
        rows = picture.rows.result()
        return batch.add_rows(rows[wanted], positions[:, wanted], chunk.key, wants_logits=wants_logits)


def _left(sequence: Sequence, chunk: Chunk) -> Chunk:
    most = sequence.work.num_pending
    return chunk if chunk.num_tokens <= most else Chunk(chunk.key, most)


def _is_within_run(sequence: Sequence, chunk: Chunk) -> bool:
    num_cached = sequence.work.num_cached
    end, picture = sequence.pictures.end_of_run(num_cached), sequence.picture
    return (end is None or num_cached + chunk.num_tokens <= end) and (picture is None or picture.is_ready)


def warm_up(context: Context, clock: Clock, vocab_size: int) -> float:
    """Seconds a token of prefill costs. The first decode reads the weights, the second is measured. Raises
    `ModelError`."""
    batch, elapsed_s = context.batch, 0.0
    tokens = np.arange(min(WARM_UP_TOKENS, context.max_batch), dtype=np.int32) % vocab_size
    for _ in range(2):
        batch.clear()
        batch.add(tokens, 0, 0, wants_logits=True)
        started_at = clock.monotonic()
        if context.decode() is not Decoded.OK:
            raise ModelError("the model does not fit its context: choose a larger one")
        elapsed_s = clock.monotonic() - started_at
        context.clear()
    return max(elapsed_s, 1e-6) / len(tokens)
