"""What a benchmark is to do, and doing it: rounds over targets in turn."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import msgspec
from msgspec import Struct

from paddler.bench.arrivals import Arrival, arrivals
from paddler.bench.client import Asking, Client, Target, open_client
from paddler.bench.goals import Goal
from paddler.bench.preflight import find_model, measure_words
from paddler.bench.report import Measured, Series
from paddler.bench.run import Load, Runner
from paddler.bench.summary import summarise
from paddler.bench.texts import Texts
from paddler.bench.trace import Entry, Traced
from paddler.bench.workload import Drawn, Shape, Workload
from paddler.clock import Clock


class Replay(Struct, frozen=True):
    """A trace; at `speed` 2 in half the time."""

    entries: Sequence[Entry]
    block_size: int = 512
    speed: float = 1.0


class Plan(Struct, frozen=True, kw_only=True):
    """`rate` is requests/s of an open loop, None with `load.concurrency` or a `replay`. Targets are asked the
    same in a round, and in no other one, nor in one of another seed: nobody finds in caches what those left there."""

    targets: Sequence[Target]
    asking: Asking
    shape: Shape
    load: Load
    rate: float | None = None
    arrival: Arrival = Arrival.POISSON
    replay: Replay | None = None
    goals: tuple[Goal, ...] = ()
    rounds: int = 1
    seed: int = 0
    warmup_s: float = 0.0
    tokens_per_word: float | None = None


def round_seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8])


class Bench:
    """`measured` and `series` grow with each run, and can be read whenever `run` has ended, however it did."""

    def __init__(self, plan: Plan, clock: Clock, on_run: Callable[[str, int, Runner | None], None]) -> None:
        """`on_run` is told the label of a target, the round, and the runner; None when that is over."""
        self._plan = plan
        self._clock = clock
        self._on_run = on_run
        self.measured: list[Measured] = []
        self.series = [Series(target.label) for target in plan.targets]
        self.tokens_per_word = plan.tokens_per_word or 1.0
        self.is_tokens_measured = False
        self.is_running = False
        self.is_stopped = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until it is done or `stop` is set. Raises `CannotBench` before anything is measured."""
        plan = self._plan
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(open_client(target, plan.asking, self._clock))
                for target in plan.targets
            ]
            models = [await find_model(client) for client in clients]
            self.measured = [
                Measured(label=target.label, url=target.url, model=model)
                for target, model in zip(plan.targets, models, strict=True)
            ]
            await self._learn_words(clients, models)
            for number in range(plan.rounds):
                for at, client in enumerate(clients):
                    if stop.is_set():
                        self.is_stopped = True
                        return
                    await self._run_once(at, client, number, stop)

    def sample_lines(self) -> Iterator[bytes]:
        """Each request as a line of JSON, with its target and round."""
        for series in self.series:
            for number, samples in enumerate(series.rounds):
                for sample in samples:
                    told = {"target": series.label, "round": number, **msgspec.structs.asdict(sample)}
                    yield msgspec.json.encode(told) + b"\n"

    async def _learn_words(self, clients: list[Client], models: list[str]) -> None:
        """All are asked, so that one that cannot answer is found now; the first says how long the texts are."""
        if self._plan.tokens_per_word is not None:
            return
        found = [
            await measure_words(client, model, self._plan.seed) for client, model in zip(clients, models, strict=True)
        ]
        self.is_tokens_measured = found[0] is not None
        self.tokens_per_word = found[0] or 1.0

    async def _run_once(self, at: int, client: Client, number: int, stop: asyncio.Event) -> None:
        plan = self._plan
        seed = round_seed(plan.seed, number)
        workload = self._workload(seed)
        runner = Runner(client, self.measured[at].model, workload, plan.load, self._clock)
        self._on_run(client.target.label, number, runner)
        self.is_running = True
        try:
            run = await runner.run(self._due(workload, seed), stop)
        finally:
            self._on_run(client.target.label, number, None)
        self.is_stopped = run.is_stopped
        self.series[at].rounds.append(run.samples)
        self.measured[at].rounds.append(summarise(run, plan.goals, plan.warmup_s))

    def _workload(self, seed: int) -> Workload:
        texts, replay = Texts(seed, self.tokens_per_word), self._plan.replay
        if replay is None:
            return Drawn(self._plan.shape, texts)
        return Traced(list(replay.entries), texts, replay.block_size, self._plan.shape.cancel_rate)

    def _due(self, workload: Workload, seed: int) -> Iterator[float] | None:
        plan = self._plan
        if plan.load.concurrency is not None:
            return None
        if plan.replay is not None:
            return iter([entry.timestamp / 1e3 / plan.replay.speed for entry in plan.replay.entries])
        assert plan.rate is not None
        return arrivals(plan.arrival, plan.rate / workload.mean_turns, seed)
