"""Models that count rows and columns of images (M-RoPE): what follows an image is nearer than its index.

The model is tiny and its weights are random (`tests/support/tiny_grid.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_grid import write_grid_model, write_grid_projection
from tiny_vision import picture
from vision_calls import ask, reference

from paddler.clock import SystemClock
from paddler.testing.engine_run import EngineRun
from paddler.wire.agent import Sampling
from workers.agent.llama import Model
from workers.agent.llama_engine import EngineSettings, LlamaEngine

MakeLlama = Callable[..., LlamaEngine]
WIDE = picture(1, size=(96, 64))
"""Six columns and four rows: 24 tokens in six positions."""
QUESTION = ("What is", WIDE, "and", picture(2, size=(64, 64)), "?")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}answer:"


@pytest.fixture(scope="module")
def grid(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Path]]:
    folder = tmp_path_factory.mktemp("grid")
    model = Model(write_grid_model(folder / "grid.gguf", model_path))
    model.chat_template = TEMPLATE
    model.end_tokens = frozenset()
    yield model, write_grid_projection(folder / "mmproj.gguf")
    model.close()


@pytest.fixture
def make(grid: tuple[Model, Path]) -> Iterator[MakeLlama]:
    model, projection = grid
    made: list[LlamaEngine] = []

    def make(**fields: Any) -> LlamaEngine:
        settings: dict[str, Any] = {"slots": 1, "context_size": 1024, "n_batch": 48, "threads": 1, **fields}
        path = str(projection)
        settings = {"model_path": str(model.path), "multimodal_projection": path, **settings}
        made.append(LlamaEngine(model, EngineSettings(**settings), SystemClock()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.mark.parametrize("n_batch", [48, 7])
def test_the_answer_is_that_of_llama_cpps_own_helper(make: MakeLlama, n_batch: int) -> None:
    """To the bit, also when an image is computed in pieces."""
    engine = make(n_batch=n_batch)
    job = ask("a", *QUESTION, max_tokens=12)
    [outcome] = EngineRun(engine).finish(job)
    ids, first = reference(engine, job, n_batch=48, num_tokens=12)
    assert outcome.ids == ids
    assert outcome.logprobs[0] == first


def test_a_turned_image_is_another_answer(make: MakeLlama) -> None:
    """As many tokens, in other rows and columns."""
    run = EngineRun(make())
    one, other = run.finish(ask("a", picture(1, size=(96, 64))), ask("b", picture(1, size=(64, 96))))
    assert one.done.usage.prompt_tokens == other.done.usage.prompt_tokens
    assert one.logprobs[0] != other.logprobs[0]


def test_another_agent_goes_on_after_any_token(make: MakeLlama) -> None:
    sampling = Sampling(temperature=0.8, seed=5)
    [whole] = EngineRun(make()).finish(ask("a", *QUESTION, sampling=sampling))
    other = EngineRun(make())
    for num in range(8):
        [rest] = other.finish(ask(str(num), *QUESTION, sampling=sampling, resume=whole, resume_at=num))
        assert whole.ids[:num] + rest.ids == whole.ids


@pytest.mark.parametrize("num_steps", range(1, 14, 2))
def test_an_interrupted_step_is_made_up_for(make: MakeLlama, num_steps: int) -> None:
    """Also within an image, whose computed part cannot be told from the rest: all of it is computed again."""
    [expected] = EngineRun(make()).finish(ask("a", *QUESTION))
    engine = make(n_batch=7)
    run = EngineRun(engine)
    outcome = run.start(ask("a", *QUESTION))
    for _ in range(num_steps):
        run.step()
    engine.interrupt()
    run.finish()
    assert outcome.ids == expected.ids
    assert engine._kv.num_cells == 0, "nothing of it can be shared, so nothing stays"
