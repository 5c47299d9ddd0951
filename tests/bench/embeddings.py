"""Embeddings/s of an engine whose model only embeds, beside a loop of nothing but decodes over the same tokens.

Both compute the same texts in turn, A B A B in one run; medians are compared. Without `--model` it is MiniLM, made from
its published weights: `PYTHONPATH=tests/support python -m tests.bench.embeddings`. Memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from paddler.cores import num_usable_cores
from paddler.engine import Engine
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, embed_job
from workers.agent.context import Context, Decoded
from workers.agent.embedder import MAX_BATCH
from workers.agent.llama import Model
from workers.agent.loading import load
from workers.agent.pooling import pooling_of

TEXT = "A short text about number {}, of about twenty tokens, as sentences of documents mostly are."
SLOTS = 4


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def run_bare(model: Model, context: Context, texts: list[str]) -> float:
    """Seconds for all vectors, without tokenising: batches as full as the engine's."""
    tokens = [model.tokenize(text, adds_special=True) for text in texts]
    begin = time.perf_counter()
    waiting = list(enumerate(tokens))
    while waiting:
        context.batch.clear()
        keys: list[int] = []
        while waiting and len(keys) < 64 and context.batch.size + len(waiting[0][1]) <= MAX_BATCH:
            _, one = waiting.pop(0)
            context.batch.add(one, 0, len(keys), wants_logits=True)
            keys.append(len(keys))
        assert context.decode() is Decoded.OK
        vectors = [context.embedding(key) for key in keys]
        assert np.isfinite(vectors).all()
        for key in keys:
            context.remove(key)
    return time.perf_counter() - begin


def run_engine(engine: Engine, texts: list[str]) -> float:
    """Seconds for all vectors, as a batch comes in: an even part of it in each slot."""
    run = EngineRun(engine)
    share = -(-len(texts) // SLOTS)
    begin = time.perf_counter()
    run.finish(*(embed_job(str(n), *texts[n * share :][:share]) for n in range(SLOTS)))
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    path: Path | None = args.model
    if path is None:
        from minilm import minilm_path

        path = minilm_path()
    threads = num_usable_cores() if args.threads is None else args.threads
    before_mb = resident_mb()
    engine = load(EngineSettings(model_path=str(path), slots=SLOTS, threads=threads))
    texts = [TEXT.format(number) for number in range(args.texts)]
    run_engine(engine, texts[:64])
    engine_mb = resident_mb()
    model = Model(path)
    pooling = pooling_of(model, None)
    size = max(MAX_BATCH, engine.info.context_size)
    context = Context(model, num_sequences=64, context_size=size, max_batch=size, num_threads=threads, pooling=pooling)
    run_bare(model, context, texts[:64])
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(args.rounds):
        bare.append(run_bare(model, context, texts))
        ours.append(run_engine(engine, texts))
    num_tokens = sum(len(model.tokenize(text, adds_special=True)) for text in texts)
    report = {
        "model": path.name,
        "threads": threads,
        "texts": args.texts,
        "tokens": num_tokens,
        "bare_per_s": args.texts / statistics.median(bare),
        "engine_per_s": args.texts / statistics.median(ours),
        "engine_tokens_per_s": num_tokens / statistics.median(ours),
        "ratio": statistics.median(a / b for a, b in zip(bare, ours, strict=True)),
        "python_mb": before_mb,
        "engine_mb": engine_mb,
    }
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in report.items()}))


if __name__ == "__main__":
    main()
