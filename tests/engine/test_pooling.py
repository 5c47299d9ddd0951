"""Pooling as an agent was told: each kind against a computation in numpy from the vectors of the tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from minilm import minilm_path
from msgspec.structs import replace
from numpy.typing import NDArray

from paddler.clock import SystemClock
from paddler.engine import Embedded, Event, ModelError, Rejected
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, embed_job, make_job
from paddler.wire.agent import Embed
from workers.agent.embedder import Embedder
from workers.agent.gguf_header import has_tensor
from workers.agent.llama import Context, Decoded, Model, Pooling
from workers.agent.llama_engine import LlamaEngine

Floats = NDArray[np.float64]

TEXT = "Once upon a time there was a small red fox who lived in a forest by the sea and told stories. " * 3
FROM_TOKENS: dict[Pooling, Callable[[Floats], Floats]] = {
    Pooling.MEAN: lambda states: states.mean(0),
    Pooling.CLS: lambda states: states[0],
    Pooling.LAST: lambda states: states[-1],
}


@pytest.fixture(scope="module", params=["chat model", "encoder"])
def any_model(request: pytest.FixtureRequest, model_path: Path) -> Model:
    return Model(model_path if request.param == "chat model" else minilm_path())


def token_vectors(model: Model, text: str) -> Floats:
    context = Context(model, num_sequences=1, context_size=256, max_batch=256, num_threads=1, pooling=Pooling.NONE)
    tokens = model.tokenize(text, adds_special=True)
    context.batch.add(tokens, 0, 0, wants_logits=True)
    assert context.decode() is Decoded.OK
    return context.token_embeddings(0, len(tokens)).astype(np.float64)


def embed(model: Model, pooling: Pooling, text: str, *, budget_s: float = 60.0) -> tuple[list[Event], int]:
    """With the number of steps it took: a token costs a second by the first guess."""
    embedder = Embedder(model, SystemClock(), pooling=pooling, max_tokens=256, num_threads=1, token_s=1.0)
    job = embed_job("a", text, normalization="none")
    assert isinstance(job.payload, Embed)
    embedder.start(job, job.payload)
    events: list[Event] = []
    for number in range(50):
        if not embedder.num_jobs:
            return events, number
        events += embedder.step(budget_s)
    raise AssertionError("not ended")


def vector(events: list[Event]) -> Floats:
    [data] = [data for event in events if isinstance(event, Embedded) for data in event.vectors]
    return np.frombuffer(data, "<f4").astype(np.float64)


@pytest.mark.parametrize("pooling", FROM_TOKENS)
def test_a_vector_is_what_its_tokens_say(any_model: Model, pooling: Pooling) -> None:
    """Also of an input that is computed in several parts, where the model allows that."""
    expected = FROM_TOKENS[pooling](token_vectors(any_model, TEXT))
    events, num_steps = embed(any_model, pooling, TEXT, budget_s=20.0)
    assert any_model.is_causal == (num_steps > 1)
    found = vector(events)
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.999
    assert abs(np.linalg.norm(found) / np.linalg.norm(expected) - 1) < 0.01


def test_kinds_differ(any_model: Model) -> None:
    states = token_vectors(any_model, TEXT)
    pooled = [pool(states) / np.linalg.norm(pool(states)) for pool in FROM_TOKENS.values()]
    assert all(one @ other < 0.99 for number, one in enumerate(pooled) for other in pooled[:number])


def test_without_pooling_an_input_is_refused(any_model: Model) -> None:
    [event], _ = embed(any_model, Pooling.NONE, TEXT)
    assert isinstance(event, Rejected)
    assert (event.status, event.param) == (400, "model")
    assert "--pooling none" in event.message


def test_the_setting_reaches_the_engine_and_its_abilities(model: Model, model_path: Path) -> None:
    plain = EngineSettings(model_path=str(model_path), slots=2, context_size=512, threads=1)
    found: dict[str | None, Floats] = {}
    for pooling in (None, "mean", "last"):
        engine = LlamaEngine(model, replace(plain, pooling=pooling), SystemClock())
        assert engine.info.abilities == ("generate", "embed", "tokenize")
        [outcome] = EngineRun(engine).finish(embed_job("a", TEXT))
        found[pooling] = np.frombuffer(outcome.vectors[0], "<f4").astype(np.float64)
        engine.close()
    assert found[None] @ found["mean"] > 0.999, "this model names none: the mean"
    assert found["last"] @ found["mean"] < 0.99

    engine = LlamaEngine(model, replace(plain, pooling="none"), SystemClock())
    assert engine.info.abilities == ("generate", "tokenize")
    refused, text = EngineRun(engine).finish(embed_job("a", TEXT), make_job("b", "hello", max_tokens=2))
    assert refused.rejected.param == "model"
    assert len(text.ids) == 2
    engine.close()
    with pytest.raises(ModelError, match="no classifier to rank with") as told:
        LlamaEngine(model, replace(plain, pooling="rank"), SystemClock())
    assert told.value.kind == "SettingsInvalid"


def test_tensors_are_found_in_the_header(tmp_path: Path) -> None:
    assert has_tensor(minilm_path(), "cls.weight", "token_embd.weight")
    assert not has_tensor(minilm_path(), "cls.weight", "cls.output.weight")
    assert not has_tensor(tmp_path / "none.gguf", "token_embd.weight")
