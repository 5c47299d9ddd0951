"""Models whose memory is no plain KV cache: what is reused of it, and that nobody hears the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tiny_memories import WINDOW, Kind, write_memory_model

from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, make_job
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.loading import load

BEGINNING = "one two three four five six seven eight nine ten " * 3
MakeRun = Callable[[Kind], EngineRun]


@pytest.fixture(scope="module")
def paths(whole_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    folder = tmp_path_factory.mktemp("memories")

    def path(kind: Kind) -> Path:
        made = folder / f"{kind}.gguf"
        return made if made.exists() else write_memory_model(made, whole_path, kind)

    return path


@pytest.fixture
def new_run(paths: Callable[[Kind], Path]) -> Iterator[MakeRun]:
    """A cold engine. Every token is computed alone, so that prefill and decode give the same bits."""
    made: list[LlamaEngine] = []

    def make(kind: Kind) -> EngineRun:
        settings = EngineSettings(model_path=str(paths(kind)), slots=1, context_size=512, n_batch=1, threads=1)
        engine = load(settings)
        assert isinstance(engine, LlamaEngine)
        made.append(engine)
        return EngineRun(engine)

    yield make
    for engine in made:
        engine.close()


@pytest.mark.parametrize("kind", ["gemma3", "mamba", "jamba"])
def test_a_warm_engine_says_what_a_cold_one_does(kind: Kind, new_run: MakeRun) -> None:
    """A second turn and another end of the same beginning, longer than the window, by an engine that has seen both and
    by one that has seen nothing."""
    warm = new_run(kind)
    [first] = warm.finish(make_job("first", BEGINNING, max_tokens=12))
    assert first.done.usage.prompt_tokens > 2 * WINDOW
    for name, prompt in {
        "again": BEGINNING,
        "turn": BEGINNING + first.text + " and then",
        "other": BEGINNING[:-20] + "and no more",
    }.items():
        [got] = warm.finish(make_job(name, prompt, max_tokens=12))
        [cold] = new_run(kind).finish(make_job(name, prompt, max_tokens=12))
        assert got.ids == cold.ids, name
        assert cold.done.usage.cached_tokens == 0
        assert (got.done.usage.cached_tokens > 2 * WINDOW) == (kind == "gemma3"), name
        assert len({*got.ids}) > 3, "its random weights say the same for ever, which would show nothing"


@pytest.mark.parametrize("kind", ["gemma3", "mamba", "jamba"])
def test_another_agent_goes_on_where_it_was(kind: Kind, new_run: MakeRun) -> None:
    whole = new_run(kind)
    job = make_job("a", BEGINNING, max_tokens=20)
    [all_of_it] = whole.finish(job)
    begun = tuple(all_of_it.ids[:9])
    [rest] = new_run(kind).finish(replace(job, resume_ids=begun))
    assert [*begun, *rest.ids] == all_of_it.ids
    [again] = whole.finish(replace(job, request_id="b", resume_ids=begun))
    assert again.ids == rest.ids
    assert (again.done.usage.cached_tokens > 0) == (kind == "gemma3")


@pytest.mark.parametrize("kind", ["mamba", "jamba"])
def test_what_has_a_state_instead_of_cells_keeps_nothing(kind: Kind, new_run: MakeRun) -> None:
    run = new_run(kind)
    run.finish(make_job("a", BEGINNING, max_tokens=2))
    engine = run.engine
    assert isinstance(engine, LlamaEngine)
    assert engine.info.max_parked == 0
    assert [one.num_tokens for one in run.retained["a"]][-1] == 0
    assert engine._context.extent(0) == (-1, -1)


def test_their_models_are_what_they_pass_for(paths: Callable[[Kind], Path]) -> None:
    cuttable: dict[Kind, bool] = {"gemma3": True, "mamba": False, "jamba": False}
    for kind, is_cuttable in cuttable.items():
        model = Model(paths(kind))
        assert (model.is_cuttable, model.metadata["general.architecture"]) == (is_cuttable, kind)
        model.close()
