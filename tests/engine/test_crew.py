"""How many threads compute: pure, and what the system tells of waiting threads."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest

from workers.agent.context import Context
from workers.agent.crew import MAX_PATIENCE_S, WINDOW_S, Crew, time_waited_s
from workers.agent.llama import Model, lib


class World:
    """A machine with so many free cores: threads beyond them wait."""

    def __init__(self, most: int, free: float) -> None:
        self.free = free
        self.waited_s = 0.0
        self.sizes: list[int] = []
        self.crew = Crew(most, self.sizes.append, lambda: self.waited_s)

    def compute(self, seconds: float, step_s: float = 0.05) -> None:
        for _ in range(round(seconds / step_s)):
            self.waited_s += max(0.0, self.crew.size - self.free) * step_s
            self.crew.computed(step_s)


def test_with_the_cores_for_itself_all_threads_compute() -> None:
    world = World(4, free=4)
    world.compute(60)
    assert world.sizes == []
    assert world.crew.size == 4


def test_what_the_clients_tokens_cost_changes_nothing() -> None:
    world = World(2, free=1.7)
    world.compute(60)
    assert world.sizes == []


def test_beside_a_busy_neighbour_fewer_compute() -> None:
    world = World(2, free=1)
    world.compute(2 * WINDOW_S)
    assert world.crew.size == 1


def test_it_shrinks_by_as_many_as_wait() -> None:
    world = World(16, free=10)
    world.compute(2 * WINDOW_S)
    assert world.sizes == [10]


def test_never_below_one() -> None:
    world = World(2, free=0)
    world.compute(100)
    assert min(world.sizes) == 1


def test_it_tries_again_ever_more_seldom() -> None:
    world = World(2, free=1)
    world.compute(600)
    tries = world.sizes.count(2)
    assert 600 / MAX_PATIENCE_S * 0.8 < tries < 600 / MAX_PATIENCE_S + 8


@pytest.mark.parametrize("most", [2, 8])
def test_it_grows_when_the_neighbour_has_gone(most: int) -> None:
    world = World(most, free=1)
    world.compute(20)
    world.free = most
    world.compute(MAX_PATIENCE_S + most * 2)
    assert world.crew.size == most


def test_a_neighbour_that_comes_back_after_a_good_time_is_met_with_the_first_patience() -> None:
    world = World(2, free=1)
    world.compute(60)
    world.free = 2
    world.compute(60)
    world.free = 1
    world.compute(2 * WINDOW_S)
    assert world.crew.size == 1
    world.free = 2
    world.compute(2)
    assert world.crew.size == 2


def test_where_the_system_does_not_say_nothing_changes() -> None:
    sizes: list[int] = []
    crew = Crew(2, sizes.append, lambda: None)
    for _ in range(100):
        crew.computed(1)
    assert sizes == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long threads wait")
def test_threads_that_share_a_core_wait_for_it() -> None:
    assert Path("/proc/self/schedstat").exists(), "this kernel was built without CONFIG_SCHED_INFO"
    core = {min(os.sched_getaffinity(0))}
    begin = time_waited_s()
    assert begin is not None

    def compute() -> None:
        os.sched_setaffinity(0, core)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # without the GIL

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    waited_s = 0.0
    # A thread takes its own waiting with it when it ends.
    while any(thread.is_alive() for thread in threads):
        waited_s = max(waited_s, (time_waited_s() or 0.0) - begin)
    assert waited_s > 0.05


def test_the_number_reaches_llama_cpp(model_path: Path) -> None:
    model = Model(model_path)
    context = Context(model, num_sequences=1, context_size=64, max_batch=8, num_threads=2)
    try:
        context._crew._change(1, is_trying=False)
        assert (lib.llama_n_threads(context._pointer), lib.llama_n_threads_batch(context._pointer)) == (1, 1)
    finally:
        context.close()
