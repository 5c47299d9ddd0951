"""Embedding models and rerankers made of chat models: causal, so that an input can be computed in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import PoolingType
from numpy.typing import NDArray
from qwen_gguf import END, write_qwen

from paddler.engine import Engine
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, Outcome, embed_job, make_job, rerank_job
from workers.agent.embedding_engine import EmbeddingEngine
from workers.agent.llama import Context, Decoded, Model, Pooling
from workers.agent.llama_engine import LlamaEngine
from workers.agent.loading import load
from workers.agent.tokens import TokenArray

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"
RANK = "Is this an answer to {query}? {document} " + END
LONG = "the red fox tells stories by the sea " * 8

Floats = NDArray[np.float64]
MakeEngine = Callable[..., Engine]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


@pytest.fixture
def make_engine(path: Path) -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make(**shape: Any) -> Engine:
        write_qwen(path, **shape)
        made.append(load(EngineSettings(model_path=str(path), slots=4, context_size=512, threads=1)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def vectors(outcome: Outcome) -> Floats:
    assert outcome.end is not None
    return np.array([np.frombuffer(data, "<f4") for data in outcome.vectors], np.float64)


def directly(path: Path, pooling: Pooling, tokens: TokenArray) -> Floats:
    """What llama.cpp makes of them in one decode."""
    model = Model(path)
    context = Context(model, num_sequences=1, context_size=512, max_batch=512, num_threads=1, pooling=pooling)
    context.batch.add(tokens, 0, 0, wants_logits=True)
    assert context.decode() is Decoded.OK
    return context.embedding(0).astype(np.float64)


def test_without_a_chat_template_it_only_embeds(make_engine: MakeEngine, path: Path) -> None:
    engine = make_engine(pooling=PoolingType.LAST)
    assert isinstance(engine, EmbeddingEngine)
    assert (engine.info.abilities, engine.info.context_size) == (("embed", "tokenize"), 512)
    embedding, text = EngineRun(engine).finish(embed_job("a", "hello", normalization="none"), make_job("b", "hello"))
    assert text.rejected.param == "model"
    model = Model(path)
    tokens = model.tokenize("hello", adds_special=True)
    assert model.piece(int(tokens[-1]), special=True).decode() == END, "as its vocabulary asks for"
    assert np.abs(vectors(embedding)[0] - directly(path, Pooling.LAST, tokens)).max() < 1e-2


def test_with_a_chat_template_it_generates_too(make_engine: MakeEngine) -> None:
    engine = make_engine(pooling=PoolingType.LAST, chat_template=CHAT)
    assert isinstance(engine, LlamaEngine)
    assert engine.info.abilities == ("generate", "embed", "tokenize")
    embedding, text = EngineRun(engine).finish(embed_job("a", "hello"), make_job("b", "hello", max_tokens=3))
    assert vectors(embedding).shape == (1, 32)
    assert len(text.ids) <= 3


def test_a_base_model_generates(make_engine: MakeEngine) -> None:
    """It names no pooling, so it was not made for embeddings: raw prompts are what it is for."""
    engine = make_engine()
    assert isinstance(engine, LlamaEngine)
    assert engine.info.abilities == ("generate", "embed", "tokenize")


@pytest.mark.parametrize("chat_template", [None, CHAT])
def test_a_reranker_reads_the_models_template(
    make_engine: MakeEngine, path: Path, chat_template: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts as at once, alone and beside generation. llama.cpp makes probabilities of the outputs of this kind."""
    engine = make_engine(
        pooling=PoolingType.RANK, labels=("yes", "no"), chat_template=chat_template, rerank_template=RANK
    )
    assert engine.info.abilities == (*(("generate", "rerank") if chat_template else ("rerank",)), "tokenize")
    monkeypatch.setattr("workers.agent.embedder.MAX_BATCH", 50)
    documents = ("a fox", LONG, "the sea {query}", "a fox")
    [outcome] = EngineRun(engine).finish(rerank_job("a", "who?", *documents))
    found = vectors(outcome)[:, 0]
    model = Model(path)
    for document, score, num_tokens in zip(documents, found, outcome.num_tokens, strict=True):
        tokens = model.tokenize(RANK.replace("{document}", document).replace("{query}", "who?", 1))
        assert len(tokens) == num_tokens
        [wanted] = directly(path, Pooling.RANK, tokens)
        assert 0 < wanted < 1
        assert abs(score - wanted) < 1e-2
    assert found.max() - found.min() > 0.02
