"""Our whole fleet beside llama-server, over HTTP: the same model, threads, context, libraries, bodies and client.

Both run all the time, and one is idle while the other is asked: A B A B ..., so that a neighbour on the machine
disturbs both. Medians over the rounds are compared; a ratio is ours over the peer's of the same round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import httpx
from msgspec import Struct, to_builtins

from paddler.cores import num_usable_cores
from tests.bench.http_client import Streamed, chat_body, stream, stream_all
from tests.bench.llama_server import find_binary, free_port, serving
from tests.bench.queue_fleet import Child, until

CONTEXT = 8192
OUTPUT = 128
SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank. "
ENDS = ("Why?", "What happened then?", "Name the animals.", "Tell it as a poem.")
SAMPLED = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


class Case(Struct, frozen=True):
    """Medians; `ratio` is the median of ours over the peer's, round by round."""

    name: str
    unit: str
    ours: float
    peer: float
    ratio: float


@contextlib.contextmanager
def fleet(model: Path, *, slots: int, threads: int, log: Path) -> Generator[int]:
    """`paddler up` with one agent until the context ends; gives the port of its OpenAI API."""
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as state:
        ports = {name: free_port() for name in ("inference", "management", "compat-openai", "web-admin-panel")}
        addresses = [word for name, port in ports.items() for word in (f"--{name}-addr", f"127.0.0.1:{port}")]
        sizes = ["--slots", str(slots), "--context-size", str(CONTEXT), "--threads", str(threads)]
        child = Child(log, "up", "--model", str(model), "--state-dir", state, *sizes, *addresses)
        try:
            until(lambda: _has_model(child, ports["compat-openai"], log), "an agent has its model", poll_s=0.1)
            yield ports["compat-openai"]
        finally:
            child.process.terminate()
            try:
                child.process.wait(20)
            except subprocess.TimeoutExpired:
                child.process.kill()


def _has_model(child: Child, port: int, log: Path) -> bool:
    if child.process.poll() is not None:
        raise SystemExit(f"paddler up ended:\n{log.read_text(errors='replace')[-2000:]}")
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).json()["data"])
    except httpx.HTTPError:
        return False


class Versus:
    """The two ports, and what was measured so far."""

    def __init__(self, ours: int, peer: int, num_rounds: int) -> None:
        self._ports = (ours, peer)
        self._num_rounds = num_rounds
        self.cases: list[Case] = []

    def measure(self, names: dict[str, str], ask: Callable[[int, int], list[float]]) -> None:
        """`names` and their units; `ask` gets a port and the number of the round, and gives a value for each. The first
        round only warms up."""
        rounds = [[ask(port, n) for port in self._ports] for n in range(self._num_rounds + 1)][1:]
        for at, (name, unit) in enumerate(names.items()):
            pairs = [(ours[at], peer[at]) for ours, peer in rounds]
            ours, peer = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
            self.cases.append(Case(name, unit, ours, peer, statistics.median(a / b for a, b in pairs)))
            print(_line(self.cases[-1]), flush=True)


def throughput(num_streams: int, fields: dict[str, float], port: int, n: int) -> list[float]:
    """Tokens/s of all streams together, from the first request to the last token."""
    bodies = [
        chat_body(f"{n}.{at}: Count from {at * 100} upwards.", max_tokens=OUTPUT, **fields) for at in range(num_streams)
    ]
    streams, seconds = stream_all(port, bodies)
    assert all(one.completion_tokens == OUTPUT for one in streams), "a stream ended early"
    return [sum(one.completion_tokens for one in streams) / seconds]


def first_tokens(port: int, n: int) -> list[float]:
    """Of a new prompt, of the same again, and the median of four at once that begin like it and end differently."""
    new, again = (stream_all(port, [chat_body(long_prompt(n), max_tokens=2)])[0] for _ in range(2))
    four = stream_all(port, [chat_body(long_prompt(n) + end, max_tokens=2) for end in ENDS])[0]
    return [statistics.median(one.first_s for one in streams) for streams in (new, again, four)]


def long_prompt(n: int) -> str:
    """About 1,000 tokens, other ones from the start for every round."""
    return f"Story {n}: {SENTENCE * 70}"


def mixed_gap(port: int, n: int) -> list[float]:
    """The 99th percentile of the time between two pieces of text of three streams, while 500-token prompts come in."""
    running = [chat_body(f"{n}.{at}: Count from {at * 50} upwards.", max_tokens=192) for at in range(3)]
    coming = [chat_body(f"Report {n}.{at}: {SENTENCE * 35}", max_tokens=4) for at in range(6)]

    async def run() -> list[Streamed]:
        tasks = [asyncio.create_task(stream(port, body)) for body in running]
        await asyncio.sleep(0.5)
        for body in coming:
            await stream(port, body)
        return await asyncio.gather(*tasks)

    gaps = sorted(gap for one in asyncio.run(run()) for gap in one.gaps_s)
    return [gaps[int(len(gaps) * 0.99)]]


def measure(model: Path, num_rounds: int, streams: list[int], threads: int | None) -> list[Case]:
    binary, threads = find_binary(), threads or num_usable_cores()
    print(
        f"{model.name}, {threads} threads, {num_rounds} rounds; ours through balancer, Valkey and agent | {binary.name}"
    )
    cases: list[Case] = []
    for slots in streams:
        with _both(binary, model, slots, threads) as (ours, peer):
            versus = Versus(ours, peer, num_rounds)

            for kind, fields in {"greedy": {}, "sampled": SAMPLED}.items():
                name = f"{slots} streams on {slots} slots, {kind}"
                versus.measure({name: "tokens/s"}, partial(throughput, slots, fields))
            cases += versus.cases
    with _both(binary, model, 4, threads) as (ours, peer):
        versus = Versus(ours, peer, num_rounds)
        prefix = ("first token, 1,000 tokens, new", "the same again", "four at once behind it, warm")
        versus.measure(dict.fromkeys(prefix, "s"), first_tokens)
        versus.measure({"p99 between tokens beside 500-token prompts": "s"}, mixed_gap)
        cases += versus.cases
    return cases


@contextlib.contextmanager
def _both(binary: Path, model: Path, slots: int, threads: int) -> Generator[tuple[int, int]]:
    with (
        tempfile.TemporaryDirectory(prefix="paddler-bench-") as logs,
        fleet(model, slots=slots, threads=threads, log=Path(logs) / "ours") as ours,
        serving(binary, model, slots=slots, context_size=CONTEXT, threads=threads, log=Path(logs) / "peer") as peer,
    ):
        yield ours, peer


def _line(case: Case) -> str:
    better = "more" if case.unit == "tokens/s" else "less"
    return f"{case.name:44} {case.ours:>9.3f} {case.peer:>9.3f} {case.unit:9} x{case.ratio:.3f} ({better} is better)"


def report(model: Path, *, num_rounds: int, streams: list[int], threads: int | None, is_json: bool) -> None:
    cases = measure(model, num_rounds, streams, threads)
    if is_json:
        json.dump(to_builtins(cases), sys.stdout, indent=1)
