"""An agent of a model that only embeds: MiniLM, made from published weights, against a forward pass in numpy."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_numpy import hidden_states
from minilm import minilm, minilm_path
from numpy.typing import NDArray
from structlog.testing import capture_logs

from paddler.engine import Engine, ModelError, NoFreeSlot
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, Outcome, embed_job, make_job
from paddler.wire.balancer import FinishReason
from workers.agent.embedding_engine import EmbeddingEngine
from workers.agent.llama import Context, Decoded, Model
from workers.agent.loading import load

TEXTS = ("A cat sits on the mat.", "A kitten is sitting on a rug.", "The stock market fell sharply on Tuesday.")
WORD = re.compile(r"\w+|[^\w\s]")
LONG = "the red fox tells stories by the sea " * 50

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="session")
def encoder() -> Iterator[Model]:
    loaded = Model(minilm_path())
    yield loaded
    loaded.close()


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make(path: Path | None = None, **settings: Any) -> Engine:
        given: dict[str, Any] = {"model_path": str(path or minilm_path()), "slots": 4, "threads": 1}
        made.append(load(EngineSettings(**given | settings)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def vectors(outcome: Outcome) -> NDArray[np.float64]:
    assert outcome.done.reason is FinishReason.STOP
    return np.array([np.frombuffer(data, "<f4") for data in outcome.vectors], np.float64)


def test_an_encoder_gets_an_engine_that_says_what_it_can(make_engine: MakeEngine) -> None:
    engine = make_engine(model_name="minilm")
    assert isinstance(engine, EmbeddingEngine)
    assert engine.info.abilities == ("embed", "tokenize")
    assert (engine.info.model, engine.info.context_size, engine.info.slots_total) == ("minilm", 512, 4)
    assert 3 < engine.info.bytes_per_token < 5


def test_vectors_are_those_of_the_published_weights(make_engine: MakeEngine, encoder: Model) -> None:
    texts = (*TEXTS, "naïve café №5", "x", "word " * 200)
    found = vectors(EngineRun(make_engine()).finish(embed_job("a", *texts))[0])
    for text, vector in zip(texts, found, strict=True):
        ids = encoder.tokenize(text, adds_special=True).tolist()
        assert (minilm().tokens[ids[0]], minilm().tokens[ids[-1]]) == ("[CLS]", "[SEP]")
        expected = hidden_states(minilm(), ids).mean(0)
        assert np.abs(vector - expected / np.linalg.norm(expected)).max() < 1e-3


def test_tokens_are_those_of_the_published_vocabulary(encoder: Model) -> None:
    ids = {token: number for number, token in enumerate(minilm().tokens)}
    for text in (*TEXTS, "Unbelievably, 42 electroencephalographs hummed!", "it's re-used: e.g. (this)"):
        expected = ["[CLS]", *(piece for word in WORD.findall(text.lower()) for piece in cut(word, ids)), "[SEP]"]
        assert [minilm().tokens[token] for token in encoder.tokenize(text, adds_special=True)] == expected


def cut(word: str, known: Container[str]) -> list[str]:
    """WordPiece: the longest known beginning, then the longest that goes on (Wu et al., 2016)."""
    pieces: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        end = next(end for end in range(len(word), start, -1) if mark + word[start:end] in known)
        pieces.append(mark + word[start:end])
        start = end
    return pieces


def test_paraphrases_are_closer(make_engine: MakeEngine) -> None:
    cat, kitten, market = vectors(EngineRun(make_engine()).finish(embed_job("a", *TEXTS))[0])
    assert cat @ kitten > 0.6
    assert max(cat @ market, kitten @ market) < 0.2


def test_a_vector_does_not_depend_on_who_shares_its_decode(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine())
    alone = np.concatenate([vectors(one) for one in run.finish(*(embed_job(text, text) for text in TEXTS))])
    together = vectors(run.finish(embed_job("all", *TEXTS, LONG, *TEXTS))[0])
    assert np.abs(together[:3] - alone).max() < 1e-3
    assert np.abs(together[4:] - alone).max() < 1e-3


def test_many_inputs_share_a_decode(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.agent.embedding_engine.STEP_S", 60.0)  # else fewer go into one on a busy machine
    run = EngineRun(make_engine())
    sizes: list[int] = []
    decode = Context.decode

    def counting(self: Context) -> Decoded:
        sizes.append(self.batch.size)
        return decode(self)

    monkeypatch.setattr(Context, "decode", counting)
    [outcome] = run.finish(embed_job("a", *[f"number {n}" for n in range(128)]))
    assert outcome.done.usage.prompt_tokens == sum(sizes)
    assert len(outcome.vectors) == 128
    assert len(sizes) <= 4


def test_generation_is_refused_with_what_to_do(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=2, model_name="minilm"))
    embedding, text = run.finish(embed_job("a", *TEXTS), make_job("b", "hello"))
    assert (text.rejected.code, text.rejected.status, text.rejected.param) == ("invalid_field", 400, "model")
    assert "minilm generates no text, it can only embed: choose another model" in text.rejected.message
    assert len(embedding.vectors) == 3
    assert run.engine.num_free_slots == 2


def test_slots_are_counted(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=2)
    engine.start(make_job("text", "hello"))
    engine.start(embed_job("a", *TEXTS))
    assert engine.num_free_slots == 0
    with pytest.raises(NoFreeSlot):
        engine.start(embed_job("b", *TEXTS))


def test_what_is_longer_than_the_context_is_refused_by_name(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine())
    good, long, words = run.finish(
        embed_job("a", "word " * 510), embed_job("b", "x", "word " * 511), embed_job("c", "x", "y" * 40_000)
    )
    assert good.num_tokens == [512]
    assert (long.rejected.code, long.rejected.param) == ("context_length_exceeded", "input[1]")
    assert "513 tokens, but at most 512" in long.rejected.message
    assert (words.rejected.code, words.rejected.param) == ("context_length_exceeded", "input[1]")
    assert "40000 bytes" in words.rejected.message
    run = EngineRun(make_engine(context_size=32))
    short, fitting = run.finish(embed_job("d", "word " * 31), embed_job("e", *["word " * 30] * 3))
    assert "at most 32" in short.rejected.message
    assert len(fitting.vectors) == 3


def test_jobs_of_long_inputs_take_turns(make_engine: MakeEngine) -> None:
    """No input can be cut, and each has more than half of a batch."""
    run = EngineRun(make_engine())
    jobs = [run.start(embed_job(name, *["word " * 300] * 4)) for name in "abc"]
    run.step_until(lambda: any(job.vectors for job in jobs))
    run.step()
    run.step()
    assert [len(job.vectors) for job in jobs] == [1, 1, 1]
    run.finish()
    assert [len(job.vectors) for job in jobs] == [4, 4, 4]


def test_a_decode_that_is_interrupted_is_repeated(make_engine: MakeEngine) -> None:
    engine = make_engine()
    assert isinstance(engine, EmbeddingEngine)
    run = EngineRun(engine)
    expected = vectors(run.finish(embed_job("a", *TEXTS))[0])
    engine.interrupt()
    assert np.array_equal(vectors(run.finish(embed_job("b", *TEXTS))[0]), expected)


def test_cancel_and_continuation(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=1))
    outcome = run.start(embed_job("a", *["word " * 300] * 4))
    run.step()
    run.engine.cancel("a")
    run.step()
    assert outcome.done.reason is FinishReason.CANCELLED
    [whole] = run.finish(embed_job("b", *TEXTS))
    [rest] = run.finish(embed_job("c", *TEXTS, embedded=tuple(whole.num_tokens[:2]), vector_size=384))
    assert np.abs(vectors(rest) - vectors(whole)[2:]).max() < 1e-3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"slots": 257}, "slots must be between 1 and 256"),
        ({"threads": 0}, "threads must be between"),
        ({"pooling": "max"}, "pooling must be one of none, mean, cls, last, rank"),
        ({"pooling": "rank"}, "no classifier"),
        ({"pooling": "none"}, "can only embed"),
        ({"context_shift": True}, "leave --context-shift out"),
    ],
)
def test_what_cannot_be_served_is_said(make_engine: MakeEngine, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words) as told:
        make_engine(**wrong)
    assert told.value.kind == "SettingsInvalid"


def test_a_context_that_is_cut_is_said(make_engine: MakeEngine) -> None:
    with capture_logs() as logged:
        make_engine(context_size=4096)
        make_engine(context_size=2048)
    told = [entry for entry in logged if entry["event"] == "no input may be as long as the context that is set"]
    assert [(entry["asked"], entry["most"]) for entry in told] == [(4096, 2048)]
