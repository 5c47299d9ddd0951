"""Jobs with images, and what llama.cpp's own helper makes of one."""

from __future__ import annotations

import ctypes

import numpy as np
from msgspec.structs import replace

from paddler.engine import Job
from paddler.images import images_of
from paddler.testing.engine_run import Outcome
from paddler.wire.agent import Generate, ImagePart, Message, Sampling, TextPart
from paddler.wire.balancer import TokenLogprob
from workers.agent.context import Context
from workers.agent.images import read_image
from workers.agent.llama import lib
from workers.agent.llama_engine import LlamaEngine
from workers.agent.logprobs import token_logprob
from workers.agent.mtmd import ImageChunk, mtmd
from workers.agent.vision import with_markers

GREEDY = Sampling(temperature=0, penalty_last_n=0)


def ask(
    name: str,
    *content: str | bytes,
    max_tokens: int = 8,
    sampling: Sampling = GREEDY,
    scope: str = "",
    resume: Outcome | None = None,
    resume_at: int = 0,
) -> Job:
    """A job with one message: its texts and images in order."""
    parts = tuple(TextPart(one) if isinstance(one, str) else ImagePart(one) for one in content)
    text = "\n".join(one for one in content if isinstance(one, str))
    payload = Generate(
        messages=(Message("user", text, parts=parts),),
        max_tokens=max_tokens,
        sampling=sampling,
        cache_scope=scope,
        logprobs=5,
    )
    job = Job(request_id=name, payload=payload)
    if resume is None:
        return job
    said = "".join(resume.pieces[:resume_at])
    return replace(job, resume_ids=tuple(resume.ids[:resume_at]), resume_text=said)


def reference(engine: LlamaEngine, job: Job, *, n_batch: int, num_tokens: int) -> tuple[list[int], TokenLogprob]:
    """Tokens, and the log probabilities of the first, from llama.cpp's own way to do it: its helper evaluates the
    prompt, then the likeliest token is taken again and again."""
    projector, model = engine._vision._projector, engine._model
    assert projector is not None
    assert isinstance(job.payload, Generate)
    text = engine._vision._encoder.render(with_markers(job.payload, projector.marker))
    pixels = [read_image(data, 1024) for _, data in images_of(job.payload)]
    chunks = next(part for part in projector.read(text, pixels) if isinstance(part, ImageChunk))._chunks
    context = Context(
        model, num_sequences=4, context_size=1024, max_batch=256, num_threads=1, is_undivided=not projector.is_causal
    )
    position = ctypes.c_int32(0)
    code = mtmd.mtmd_helper_eval_chunks(
        projector._pointer, context._pointer, chunks.pointer, 0, 0, n_batch, True, ctypes.byref(position)
    )
    assert code == 0
    ids: list[int] = []
    pointer = lib.llama_get_logits_ith(context._pointer, -1)
    logits = np.ctypeslib.as_array(pointer, (model.vocab_size,)).copy()
    first = token_logprob(logits, int(logits.argmax()), 5, model)
    for _ in range(num_tokens):
        ids.append(int(logits.argmax()))
        context.batch.clear()
        context.batch.add(np.array(ids[-1:], np.int32), position.value + len(ids) - 1, 0, wants_logits=True)
        context.decode()
        logits = context.logits()[0].copy()
    context.close()
    return ids, first
