"""Log probabilities: of every token of the output, also of those that another agent samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from paddler.engine import Engine
from paddler.payload import check_payload
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from paddler.wire.agent import Generate, Sampling
from workers.agent.llama import Model
from workers.agent.logprobs import token_logprob

STORY = "Once upon a time there was a small red fox who lived"
RANDOM = Sampling(temperature=1.0, seed=7)

MakeEngine = Callable[..., Engine]


def generate(make: MakeEngine, sampling: Sampling | None = None, **more: object) -> Outcome:
    job = make_job("a", STORY, sampling=sampling, **more)  # pyright: ignore[reportArgumentType]  # by name
    return EngineRun(make(slots=1)).finish(job)[0]


def test_every_token_has_its_own_and_those_of_the_likeliest(make_engine: MakeEngine) -> None:
    outcome = generate(make_engine, logprobs=3)
    assert len(outcome.logprobs) == len(outcome.ids) == 16
    assert b"".join(entry.piece for entry in outcome.logprobs).decode() == outcome.text
    for entry in outcome.logprobs:
        assert entry.top[0] == (entry.piece, entry.logprob), "greedy takes the likeliest"
        assert len(entry.top) == 3
        assert [logprob for _, logprob in entry.top] == sorted((logprob for _, logprob in entry.top), reverse=True)
        assert entry.logprob <= 0


def test_none_unless_asked_for_and_they_change_nothing(make_engine: MakeEngine) -> None:
    plain = generate(make_engine, RANDOM)
    assert plain.logprobs == []
    asked = generate(make_engine, RANDOM, logprobs=0)
    assert asked.ids == plain.ids
    assert len(asked.logprobs) == len(asked.ids)
    assert all(entry.top == () for entry in asked.logprobs)


def test_another_agent_goes_on_with_them(make_engine: MakeEngine) -> None:
    whole = generate(make_engine, RANDOM, logprobs=2)
    rest = generate(make_engine, RANDOM, logprobs=2, resume=whole, resume_at=7)
    assert rest.logprobs == whole.logprobs[7:]


@pytest.mark.parametrize("num_top", [-1, 21])
def test_more_alternatives_than_openai_has_are_refused(num_top: int) -> None:
    with pytest.raises(Exception, match="top_logprobs must be between 0 and 20"):
        check_payload(Generate(prompt="p", logprobs=num_top))


def test_they_are_the_models_own(model: Model) -> None:
    """A softmax over its logits, before temperature and penalties; a control token is written out."""
    logits = np.random.default_rng(1).normal(0, 3, model.vocab_size).astype(np.float32)
    end = next(iter(model.end_tokens))
    logits[end] = 30
    entry = token_logprob(logits, 500, 4, model)
    likely = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    expected = [math.log(p) for p in np.sort(likely)[:-5:-1].tolist()]
    assert entry.piece == model.pieces[500]
    assert entry.logprob == pytest.approx(math.log(likely[500]), abs=1e-4)
    assert [logprob for _, logprob in entry.top] == pytest.approx(expected, abs=1e-4)
    assert entry.top[0][0] == model.piece(end, special=True) != b""
