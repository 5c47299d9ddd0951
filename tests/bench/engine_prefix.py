"""What the prefix cache saves: time to first token of a prompt of about 1,000 tokens, new, again, and four at once.

Every round has a prefix of its own, so that "cold" is cold; medians over the rounds are compared. "Four, warm" are four
requests at once with different ends behind a prefix that is in the cache; "four, new" are four at once behind one that
nobody has computed yet. Afterwards many short requests in families run through, and memory is looked at.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

from msgspec import Struct, to_builtins

from paddler.clock import SystemClock
from paddler.cores import num_usable_cores
from paddler.engine import Job
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, make_job
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank. "
ENDS = ("Why?", "What happened then?", "Name the animals.", "Tell it as a poem.")


class Case(Struct, frozen=True):
    name: str
    seconds: float
    to_cold: float
    cached_tokens: float


def first_tokens(run: EngineRun, jobs: list[Job]) -> list[float]:
    """Start jobs together; seconds until the first token of each. They have ended afterwards."""
    begin = time.perf_counter()
    outcomes = [run.start(job) for job in jobs]
    taken: dict[int, float] = {}
    while len(taken) < len(jobs):
        run.step()
        now = time.perf_counter() - begin
        for n, outcome in enumerate(outcomes):
            if outcome.ids:
                taken.setdefault(n, now)
    run.finish()
    return list(taken.values())


def measure(model: Model, num_rounds: int, threads: int | None) -> tuple[int, list[Case]]:
    """Tokens of the prompt, and the cases."""
    settings = EngineSettings(model_path=str(model.path), slots=4, context_size=8192, threads=threads)
    run = EngineRun(LlamaEngine(model, settings, SystemClock()))
    times: dict[str, list[float]] = {}
    cached: dict[str, list[int]] = {}
    num_tokens = 0
    for n in range(num_rounds):
        prefix, new = (f"{kind} {n}: {SENTENCE * 70}" for kind in ("Story", "Report"))
        num_tokens = len(model.tokenize(prefix))
        for name, prompts in {
            "cold": [prefix],
            "same again": [prefix],
            "four, warm": [prefix + end for end in ENDS],
            "four, new": [new + end for end in ENDS],
        }.items():
            jobs = [make_job(f"{n} {name} {at}", prompt, max_tokens=2) for at, prompt in enumerate(prompts)]
            times.setdefault(name, []).append(statistics.median(first_tokens(run, jobs)))
            usages = [run.outcomes[job.request_id].done.usage for job in jobs]
            cached.setdefault(name, []).append(round(statistics.median(usage.cached_tokens for usage in usages)))
    run.engine.close()
    cold_s = statistics.median(times["cold"])
    return num_tokens, [
        Case(name, statistics.median(taken), statistics.median(taken) / cold_s, statistics.median(cached[name]))
        for name, taken in times.items()
    ]


class Use(Struct, frozen=True):
    requests: int
    resident_mib: float
    parked: int
    cells: int


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_memory(model: Model, num_requests: int, threads: int | None) -> list[Use]:
    """In a context that is too small for all: what is resident after each quarter."""
    settings = EngineSettings(model_path=str(model.path), slots=4, context_size=2048, threads=threads)
    engine = LlamaEngine(model, settings, SystemClock())
    uses: list[Use] = []
    for quarter in range(4):
        run = EngineRun(engine)
        numbers = range(quarter * num_requests // 4, (quarter + 1) * num_requests // 4)
        run.finish(*(make_job(str(n), f"Family {n % 7}. {SENTENCE * 2} Request {n}.", max_tokens=2) for n in numbers))
        kv = engine._kv
        uses.append(Use((quarter + 1) * num_requests // 4, resident_mib(), kv.num_parked, kv.num_cells))
    engine.close()
    return uses


def report(model: Model, *, num_rounds: int, num_requests: int, threads: int | None, is_json: bool) -> None:
    num_tokens, cases = measure(model, num_rounds, threads)
    uses = measure_memory(model, num_requests, threads)
    if is_json:
        print(json.dumps(to_builtins({"prompt_tokens": num_tokens, "cases": cases, "memory": uses}), indent=1))
        return
    num_threads = threads or num_usable_cores()
    print(f"{model.path.name}, {num_threads} threads, prompt of {num_tokens} tokens, {num_rounds} rounds")
    print(f"{'':12} {'first token':>12} {'to cold':>8} {'cached':>7}")
    for case in cases:
        print(f"{case.name:12} {case.seconds:>10.3f} s {case.to_cold:>8.3f} {case.cached_tokens:>7.0f}")
    print(f"{'requests':12} {'resident':>12} {'parked':>8} {'cells':>7}")
    for use in uses:
        print(f"{use.requests:<12} {use.resident_mib:>8.1f} MiB {use.parked:>8} {use.cells:>7}")
