"""`paddler doctor --model`: can this llama.cpp read the file, and does it fit into memory?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from paddler.doctor.finding import Finding, fail, ok, warn
from paddler.doctor.model_check import ModelQuestion
from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings
from workers.agent.probe import check
from workers.agent.shards import shards_of

GIB = 2**30
COMPUTE = 256 * 2**20
"""Roughly what llama.cpp's graphs take beside weights and KV cache."""


def check_model(question: ModelQuestion) -> list[Finding]:
    """Reads headers and vocabulary in a child first, which a bad file may end; no weights."""
    settings = EngineSettings(
        model_path=str(question.path), slots=question.slots, context_size=question.context_size, n_gpu_layers=0
    )
    try:
        check(settings)
        found = _read(question)
    except ModelError as error:
        return [fail("model", str(error), "give the path of a GGUF file that this user can read, and all its parts")]
    return found


def _read(question: ModelQuestion) -> list[Finding]:
    from workers.agent.llama import Model  # half a second
    from workers.agent.options import Look

    model = Model(question.path, options=Look(is_full=False))
    weights = sum(shard.stat().st_size for shard in shards_of(question.path))
    cache = cache_bytes(model.metadata, question.context_size)
    name = model.metadata.get("general.name", question.path.name)
    found = [ok("model", f"{name}, {weights / GIB:.2f} GiB, trained for {model.context_length} tokens of context")]
    if question.context_size // question.slots > model.context_length:
        found.append(
            warn(
                "model context",
                f"{question.context_size} tokens for {question.slots} slots are more than the model was trained for",
                f"--context-size {model.context_length * question.slots}",
            )
        )
    return [*found, judge_memory(weights, cache, question)]


def judge_memory(weights: int, cache: int, question: ModelQuestion) -> Finding:
    needed = weights + cache + COMPUTE
    said = (
        f"about {needed / GIB:.2f} GiB: weights {weights / GIB:.2f}, KV cache of {question.context_size} tokens "
        f"{cache / GIB:.2f}"
    )
    if question.available is None:
        return ok("model memory", said)
    said += f"; available {question.available / GIB:.2f} GiB"
    remedy = "a smaller --context-size, --cache-type-k q8_0 --cache-type-v q8_0, a smaller model, or more memory"
    if needed > question.available:
        return fail("model memory", said, remedy)
    return warn("model memory", said, remedy) if needed > 0.9 * question.available else ok("model memory", said)


def cache_bytes(metadata: Mapping[str, str], context_size: int) -> int:
    """Keys and values in f16 for every layer and token: an upper bound for models with windows or states instead."""
    architecture = metadata.get("general.architecture", "")

    def number(name: str, default: float) -> float:
        """The largest, where layers differ."""
        text = metadata.get(f"{architecture}.{name}", "")
        values = [float(part) for part in text.strip("[]").split(",") if part.strip().replace(".", "").isdigit()]
        return max(values, default=default)

    heads = number("attention.head_count", 1) or 1
    head_size = number("embedding_length", 0) / heads
    kv_heads = number("attention.head_count_kv", heads)
    per_token = kv_heads * (number("attention.key_length", head_size) + number("attention.value_length", head_size))
    return math.ceil(2 * number("block_count", 0) * context_size * per_token)
