"""The scheduler as a pure state machine, driven by a simulated engine with a known cost per token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from workers.agent.main import lone_step_s
from workers.agent.scheduler import (
    LONE_STEP_TARGET_S,
    MIN_PREFILL_TOKENS,
    PREFILL_STEP_TARGET_S,
    TILE,
    Chunk,
    Plan,
    Scheduler,
    Work,
)

FAST = 1e-6  # seconds a token: time never limits a chunk


class Simulated(Struct):
    work: Work
    num_to_generate: int


class Simulation:
    """Applies plans as the engine does, and checks what must hold in every step."""

    def __init__(self, scheduler: Scheduler, *, step_s: float = 0.0, token_s: float = FAST) -> None:
        self.scheduler = scheduler
        self.step_s = step_s
        self.token_s = token_s
        self.sequences: list[Simulated] = []
        self.finished: list[int] = []
        self.num_computed = 0
        self.elapsed: list[float] = []

    def add(self, prompt: int, output: int) -> int:
        key = len(self.sequences) + len(self.finished)
        self.sequences.append(Simulated(Work(key, num_total=prompt), output))
        return key

    def step(self) -> Plan:
        works = [sequence.work for sequence in self.sequences]
        plan = self.scheduler.plan(works)
        by_key = {sequence.work.key: sequence for sequence in self.sequences}
        generating = {work.key for work in works if work.is_admitted and work.num_pending == 1 and not work.gives_way}
        for key in plan.preempted:
            first = min(works, key=lambda work: work.gives_way)
            assert key != first.key, "the oldest is never preempted"
            by_key[key].work.is_admitted, by_key[key].work.num_cached = False, 0
        for key in plan.admitted:
            by_key[key].work.is_admitted = True
        for chunk in plan.chunks:
            work = by_key[chunk.key].work
            assert work.is_admitted
            assert 0 < chunk.num_tokens <= work.num_pending
            work.num_cached += chunk.num_tokens
        assert sum(work.num_cached for work in works) <= self.scheduler.num_cells
        assert generating - set(plan.preempted) <= {chunk.key for chunk in plan.chunks}, "decode comes first"
        assert plan.chunks or plan.preempted or not works, "somebody always moves"
        num_tokens = sum(chunk.num_tokens for chunk in plan.chunks)
        self.num_computed += num_tokens
        self.elapsed.append(self.step_s + self.token_s * num_tokens)
        self.scheduler.observe(plan, self.elapsed[-1])
        for sequence in list(self.sequences):
            if sequence.work.num_pending == 0:
                sequence.num_to_generate -= 1
                sequence.work.num_total += 1
                if sequence.num_to_generate == 0:
                    self.sequences.remove(sequence)
                    self.finished.append(sequence.work.key)
        return plan

    def run(self) -> None:
        for _ in range(100_000):
            if not self.sequences:
                return
            self.step()
        pytest.fail("the sequences do not end")


def make(num_cells: int = 1000, max_batch: int = 512, prefill_token_s: float = FAST) -> Scheduler:
    return Scheduler(num_cells=num_cells, max_batch=max_batch, prefill_token_s=prefill_token_s)


jobs = st.lists(st.tuples(st.integers(1, 150), st.integers(1, 50)), min_size=1, max_size=8)


@given(jobs, st.integers(200, 400), st.integers(8, 64))
def test_every_sequence_ends_within_the_cells(jobs: list[tuple[int, int]], num_cells: int, max_batch: int) -> None:
    simulation = Simulation(make(num_cells, max_batch))
    for prompt, output in jobs:
        simulation.add(prompt, output)
    simulation.run()
    assert sorted(simulation.finished) == list(range(len(jobs)))


@given(jobs)
def test_without_pressure_nothing_is_computed_twice(jobs: list[tuple[int, int]]) -> None:
    simulation = Simulation(make(num_cells=10_000))
    for prompt, output in jobs:
        simulation.add(prompt, output)
    simulation.run()
    assert simulation.num_computed == sum(prompt + output - 1 for prompt, output in jobs)


def test_a_long_prompt_does_not_stall_the_others() -> None:
    simulation = Simulation(make(10_000, prefill_token_s=0.003), token_s=0.003)
    running = simulation.add(5, 500)
    simulation.step()
    long = simulation.add(3000, 5)
    while simulation.sequences[-1].work.num_cached < 3000:
        plan = simulation.step()
        assert plan.chunks[0] == Chunk(running, 1)
        assert plan.chunks[1].key == long
    assert max(simulation.elapsed) < 0.25


@pytest.mark.parametrize(("num_prompts", "target_s"), [(1, LONE_STEP_TARGET_S), (2, PREFILL_STEP_TARGET_S)])
@pytest.mark.parametrize("token_s", [0.0001, 0.0035, 0.02])
def test_the_chunk_follows_the_measured_speed(token_s: float, num_prompts: int, target_s: float) -> None:
    """A machine that becomes ten times slower gets shorter chunks; while it is steady, the time is used."""
    simulation = Simulation(make(100_000, 100_000, prefill_token_s=token_s), token_s=token_s)
    for _ in range(num_prompts):
        simulation.add(45_000, 1)
    simulation.step()
    assert simulation.elapsed[-1] == pytest.approx(target_s, rel=0.3)
    simulation.token_s *= 10
    for _ in range(6):
        simulation.step()
    num_tokens = target_s / simulation.token_s
    expected = target_s if num_tokens > MIN_PREFILL_TOKENS else MIN_PREFILL_TOKENS * simulation.token_s
    assert simulation.elapsed[-1] == pytest.approx(expected, rel=0.3)


def test_a_batch_is_whole_tiles_with_the_decoding_tokens() -> None:
    scheduler = make(10_000, prefill_token_s=0.0035)
    works = [Work(0, 60, 59, is_admitted=True), Work(1, 50, 49, is_admitted=True), Work(2, 4000)]
    assert sum(chunk.num_tokens for chunk in scheduler.plan(works).chunks) == TILE
    assert scheduler.plan(works[2:]).chunks == (Chunk(2, 4 * TILE),)


def test_one_mismeasured_step_does_not_allow_a_long_one() -> None:
    scheduler = make(100_000, 100_000, prefill_token_s=0.004)
    scheduler.observe(Plan(chunks=(Chunk(0, MIN_PREFILL_TOKENS),)), 0.0)
    scheduler.observe(Plan(chunks=(Chunk(0, 2), Chunk(1, 2))), 0.0)
    assert scheduler.prefill_token_s > 0.8 * 0.004


def test_prefill_is_shared_and_a_short_prompt_leaves_its_rest_to_the_long_ones() -> None:
    scheduler = make(max_batch=90)
    works = [Work(0, 400), Work(1, 10), Work(2, 400)]
    assert scheduler.plan(works).chunks == (Chunk(0, 40), Chunk(1, 10), Chunk(2, 40))


def test_the_youngest_makes_room_and_comes_back() -> None:
    scheduler = make(num_cells=100)
    works = [Work(0, 60, 59, is_admitted=True), Work(1, 41, 40, is_admitted=True)]
    plan = scheduler.plan(works)
    assert (plan.preempted, plan.admitted, plan.chunks) == ((1,), (), (Chunk(0, 1),))
    works = [Work(0, 61, 60, is_admitted=True), Work(1, 41)]
    assert scheduler.plan(works).admitted == (), "no room yet"
    assert scheduler.plan(works[1:]).admitted == (1,)


def test_nobody_overtakes_a_large_prompt_that_waits_for_room() -> None:
    scheduler = make(num_cells=100)
    works = [Work(0, 50, 49, is_admitted=True), Work(1, 60), Work(2, 10)]
    assert scheduler.plan(works).admitted == ()


def test_shared_cells_count_for_the_older_one_alone() -> None:
    scheduler = make(num_cells=100)
    works = [Work(0, 60, 59, is_admitted=True), Work(1, 70, 69, num_shared=50, is_admitted=True)]
    assert scheduler.plan(works).preempted == (), "80 cells"
    works.append(Work(2, 60, 50, num_shared=50))
    assert scheduler.plan(works).admitted == (2,)
    works[2].num_shared = 20
    assert scheduler.plan(works).admitted == ()
    works[1].num_total = 91
    assert scheduler.plan(works[:2]).preempted == (1,)


def test_a_held_one_is_passed_but_its_room_is_kept() -> None:
    scheduler = make(num_cells=200)
    works = [Work(0, 60, 10, is_admitted=True), Work(1, 60, 0, is_held=True), Work(2, 60), Work(3, 60)]
    plan = scheduler.plan(works)
    assert plan.admitted == (2,)
    assert [chunk.key for chunk in plan.chunks] == [0, 2]
    works[1].is_held = False
    assert scheduler.plan(works).admitted == (1, 2), "the older one first"


def test_a_cache_that_holds_less_than_counted_is_planned_for() -> None:
    scheduler = make(num_cells=1000)
    works = [Work(0, 60, 59, is_admitted=True), Work(1, 60, 59, is_admitted=True)]
    assert scheduler.plan(works).preempted == ()
    scheduler.shrink(119)
    assert scheduler.plan(works).preempted == (1,)
    scheduler.shrink(500)
    assert scheduler.num_cells == 119, "it never grows"


def test_what_was_sampled_is_computed_again_below_a_tile() -> None:
    """In a tile it would be rounded otherwise than it was the first time, and a near tie might fall differently."""
    work = Work(0, 300, num_prompt=100)
    sizes: list[int] = []
    while work.num_pending > 1:
        (chunk,) = make().plan([work]).chunks
        sizes.append(chunk.num_tokens)
        work.num_cached += chunk.num_tokens
    assert sizes == [100, TILE - 1, TILE - 1, TILE - 1, 300 - 100 - 3 * (TILE - 1)]


def test_a_batch_that_computes_again_stays_below_a_tile_with_all_that_is_in_it() -> None:
    works = [Work(0, 60, 59, is_admitted=True), Work(1, 400, num_prompt=400), Work(2, 300, 200, num_prompt=200)]
    chunks = make().plan(works).chunks
    assert sum(chunk.num_tokens for chunk in chunks) == TILE - 1
    assert len(chunks) == 3


@pytest.mark.parametrize("other", [{"is_held": True}, {"is_restoring": True}])
def test_one_beside_whom_another_waits_for_its_states_is_not_alone(other: dict[str, bool]) -> None:
    scheduler = Scheduler(num_cells=100_000, max_batch=100_000, prefill_token_s=0.001)
    busy = Work(0, 45_000, is_admitted=True)
    [alone] = scheduler.plan([busy]).chunks
    [beside] = scheduler.plan([busy, Work(1, 500, **other)]).chunks
    assert alone.num_tokens * 0.001 == pytest.approx(LONE_STEP_TARGET_S, rel=0.1)
    assert beside.num_tokens * 0.001 == pytest.approx(PREFILL_STEP_TARGET_S, rel=0.1)


def test_only_who_is_admitted_takes_time_for_its_states() -> None:
    scheduler = Scheduler(num_cells=1000, max_batch=100_000, prefill_token_s=0.001)
    busy, late = Work(0, 900, is_admitted=True), Work(1, 300, num_cached=256, restore_s=0.3)
    [chunk] = scheduler.plan([busy, late]).chunks
    assert chunk.num_tokens == 900, "as if it were alone"
    first, second = scheduler.plan([Work(0, 500), Work(1, 300, num_cached=256, restore_s=0.3)]).chunks
    assert (first.num_tokens + second.num_tokens) * 0.001 == pytest.approx(PREFILL_STEP_TARGET_S - 0.3, abs=0.06)


def test_more_prefilling_sequences_than_tokens_to_give() -> None:
    plan = make(max_batch=2).plan([Work(key, 50) for key in range(4)])
    assert plan.chunks == (Chunk(0, 1), Chunk(1, 1))


@pytest.mark.parametrize(
    ("lease_ms", "step_s"), [(500, PREFILL_STEP_TARGET_S), (3000, 0.6), (5000, 1.0), (60_000, LONE_STEP_TARGET_S)]
)
def test_a_lone_step_is_bounded_by_the_lease(lease_ms: int, step_s: float) -> None:
    assert lone_step_s(lease_ms) == pytest.approx(step_s)
    scheduler = Scheduler(num_cells=100_000, max_batch=100_000, prefill_token_s=0.001, lone_step_s=step_s)
    simulation = Simulation(scheduler, token_s=0.001)
    simulation.add(45_000, 1)
    simulation.step()
    assert simulation.elapsed[-1] == pytest.approx(step_s, rel=0.3)


def of_nobody(scheduler: Scheduler, prompt: int) -> tuple[Simulation, int]:
    """A long prompt that gives way has begun."""
    simulation = Simulation(scheduler, token_s=0.003)
    key = simulation.add(prompt, 1)
    simulation.sequences[0].work.gives_way = True
    simulation.step()
    return simulation, key


def test_what_gives_way_takes_little_of_the_time() -> None:
    simulation, last = of_nobody(make(10_000, prefill_token_s=0.003), 3000)
    assert simulation.sequences[0].work.num_cached > MIN_PREFILL_TOKENS, "alone it is computed as any prompt"
    first = simulation.add(100, 50)
    assert {chunk.key for chunk in simulation.step().chunks} == {first}, "nothing beside a prompt"
    while simulation.sequences[1].work.num_pending > 1:
        simulation.step()
    learned, simulation.step_s = simulation.scheduler.prefill_token_s, 0.1
    assert simulation.step().chunks == (Chunk(first, 1), Chunk(last, MIN_PREFILL_TOKENS))
    assert simulation.scheduler.prefill_token_s == learned, "a few tokens say nothing of what a prompt costs"
    simulation.run()


def test_what_gives_way_is_preempted_for_who_has_no_room() -> None:
    simulation, last = of_nobody(make(1000, prefill_token_s=0.003), 600)
    first = simulation.add(500, 5)
    plan = simulation.step()
    assert (plan.preempted, plan.admitted) == ((last,), ())
    assert simulation.step().admitted == (first,)


def test_what_gives_way_is_preempted_before_who_came_later() -> None:
    simulation, last = of_nobody(make(1000, max_batch=64), 600)
    first = simulation.add(350, 100)
    preempted = [key for _ in range(70) for key in simulation.step().preempted]
    assert preempted == [last]
    assert [one.work.key for one in simulation.sequences if one.work.is_admitted] == [first]


@given(jobs, st.integers(200, 400), st.integers(8, 64), st.integers(0, 7))
def test_what_gives_way_ends_too(jobs: list[tuple[int, int]], num_cells: int, max_batch: int, number: int) -> None:
    simulation = Simulation(make(num_cells, max_batch))
    for prompt, output in jobs:
        simulation.add(prompt, output)
    simulation.sequences[number % len(jobs)].work.gives_way = True
    simulation.run()
    assert sorted(simulation.finished) == list(range(len(jobs)))
