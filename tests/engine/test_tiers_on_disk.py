"""An engine with the keeper of the fleet and a directory: what one process computed another restores, or computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paddler.clock import SystemClock
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.saved_states import BLOCK
from workers.agent.scheduler import Scheduler
from workers.agent.tiers.disk import DiskTier
from workers.agent.tiers.keeper import StateKeeper
from workers.agent.tiers.names import tail_name
from workers.agent.tiers.packing import Packer

LONG = "one two three four five six seven eight nine ten " * 60
"""600 tokens: two blocks and a tail."""
SECRET = b"s" * 32
Start = Callable[..., EngineRun]


@pytest.fixture
def start(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Agents on one machine, one after the other or side by side. Computing is believed to be so slow that a busy disk
    is waited for."""
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())
    monkeypatch.setattr(Scheduler, "prefill_token_s", property(lambda _scheduler: 0.05))
    monkeypatch.setattr("workers.agent.reading_ahead.MAX_S", 30.0)
    made: list[LlamaEngine] = []

    def make(*, key: bytes = SECRET, has_disk: bool = True) -> EngineRun:
        def keeper(_model: Model, _settings: EngineSettings, _size: int) -> StateKeeper:
            clock = SystemClock()
            tiers = [DiskTier(tmp_path, 1 << 30, clock)] if has_disk else []
            return StateKeeper(tiers, Packer(key), SECRET, lambda: "f", clock)

        settings = EngineSettings(
            model_path=str(model.path), slots=2, context_size=2048, n_batch=256, threads=1, kv_ram=1 << 28
        )
        made.append(LlamaEngine(model, settings, SystemClock(), keeper))
        return EngineRun(made[-1])

    yield make
    for engine in made:
        engine.close()


def finish(run: EngineRun, name: str, *, max_tokens: int = 1) -> Outcome:
    [outcome] = run.finish(make_job(name, LONG, max_tokens=max_tokens))
    assert run.engine.flush_states(30.0)
    return outcome


def test_after_a_restart_nothing_is_computed_again(start: Start) -> None:
    before = start()
    begun = finish(before, "a")
    before.engine.close()
    outcome = finish(start(), "b")
    assert outcome.ids == begun.ids
    assert outcome.done.usage.cached_tokens == begun.done.usage.prompt_tokens - 1


def test_what_was_restored_is_not_written_again(start: Start) -> None:
    finish(start(), "a")
    other = start()
    finish(other, "b")
    [_, disk] = other.engine.tiers
    assert (disk.num_hits, disk.num_blocks, disk.num_failures) == (3, 3, 0)
    assert disk.num_tokens == 600
    assert disk.saved_s == pytest.approx(600 * 0.05)


def test_where_no_tier_is_written_to_other_agents_find_the_end_too(start: Start) -> None:
    run = start(has_disk=False)
    finish(run, "a")
    assert isinstance(run.engine, LlamaEngine)
    keeper, tree = run.engine._keeper, run.engine._kv._tree
    assert isinstance(keeper, StateKeeper)
    tokens = tree.tokens(tree.parked[0])
    first = keeper.next(keeper.root(""), tokens[:BLOCK])
    second = keeper.next(first, tokens[BLOCK : 2 * BLOCK])
    run.engine._kv.evict_all()
    assert len(keeper.packed([first, second, tail_name(SECRET, second)])) == 3


def test_states_under_another_key_are_a_miss(start: Start) -> None:
    finish(start(), "a")
    assert finish(start(key=b"another" * 5), "b").done.usage.cached_tokens == 0


def test_a_leaving_agent_and_the_next(start: Start) -> None:
    one = start()
    running = one.start(make_job("a", LONG, max_tokens=60))
    one.step_until(lambda: len(running.ids) == 20)
    one.engine.save_running()
    assert one.engine.flush_states(30.0)
    other = start()
    [outcome] = other.finish(make_job("a", LONG, max_tokens=60, resume=running, resume_at=20))
    assert len(outcome.ids) == 40
    assert other.engine.saved is not None
    assert other.engine.saved.num_restored == outcome.done.usage.prompt_tokens + 19
