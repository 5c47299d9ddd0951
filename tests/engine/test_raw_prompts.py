"""Prompts that are tokens, and texts with a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import write_model

from paddler.clock import SystemClock
from paddler.engine import Engine, Job
from paddler.engine_settings import EngineSettings
from paddler.errors import InvalidField
from paddler.payload import check_payload
from paddler.testing.engine_run import EngineRun
from paddler.wire.agent import CountTokens, Generate, Message, Sampling, Tokenize
from paddler.wire.answers import Counted, Tokenized, decode_answer
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.raw_prompts import around_gap

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
GREEDY = Sampling(temperature=0, penalty_last_n=0)


def job(name: str, **fields: object) -> Job:
    return Job(request_id=name, payload=Generate(max_tokens=8, sampling=GREEDY, **fields))  # pyright: ignore[reportArgumentType]  # any of them


@pytest.fixture(scope="module")
def coder(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model with the tokens of Qwen's coders, and random weights."""
    loaded = Model(write_model(tmp_path_factory.mktemp("coder") / "coder.gguf", model_path, None, control=MARKS))
    yield loaded
    loaded.close()


def test_a_prompt_of_tokens_is_as_good_as_its_text(make_engine: Callable[..., Engine]) -> None:
    run = EngineRun(make_engine())
    text = "Once upon a time"
    [asked] = run.finish(Job(request_id="q", payload=Tokenize(text=text)))
    tokenized = decode_answer(asked.done.answer)
    assert isinstance(tokenized, Tokenized)
    by_text, by_ids = run.finish(job("text", prompt=text), job("ids", prompt_ids=tokenized.tokens))
    assert by_ids.text == by_text.text
    assert by_ids.done.usage.prompt_tokens == by_text.done.usage.prompt_tokens
    [counted] = run.finish(Job(request_id="c", payload=CountTokens(request=Generate(prompt_ids=tokenized.tokens))))
    assert decode_answer(counted.done.answer) == Counted(by_ids.done.usage.prompt_tokens)


def test_what_is_no_token_is_refused(make_engine: Callable[..., Engine]) -> None:
    run = EngineRun(make_engine())
    unknown, empty = run.finish(job("a", prompt_ids=(1, 10**8)), job("b", prompt_ids=()))
    assert (unknown.rejected.param, empty.rejected.param) == ("prompt", "prompt")


@pytest.mark.parametrize(
    "payload",
    [
        Generate(prompt="a", prompt_ids=(1,)),
        Generate(messages=(Message("user", "a"),), prompt_ids=(1,)),
        Generate(prompt_ids=(1,), suffix="b"),
        Generate(messages=(Message("user", "a"),), suffix="b"),
    ],
)
def test_what_excludes_each_other(payload: Generate) -> None:
    with pytest.raises(InvalidField):
        check_payload(payload)


def test_the_gap_comes_last(coder: Model) -> None:
    tokens = around_gap(coder, "def f():", "<|fim_middle|> return x", name="coder")
    marks = [int(coder.tokenize(mark)[0]) for mark in MARKS]
    assert [int(token) for token in tokens if token in marks] == marks, "one that a client writes is text"
    assert (tokens[0], tokens[-1]) == (marks[0], marks[2])
    at = int(np.flatnonzero(tokens == marks[1])[0])
    before, behind = (b"".join(coder.pieces[one] for one in part) for part in (tokens[1:at], tokens[at + 1 : -1]))
    assert (before, behind) == (b"def f():", b"<|fim_middle|> return x")


def test_an_engine_fills_in_what_its_model_can(coder: Model, make_llama: Callable[..., LlamaEngine]) -> None:
    engine = LlamaEngine(
        coder, EngineSettings(model_path=str(coder.path), slots=2, threads=1, context_size=512), SystemClock()
    )
    try:
        run = EngineRun(engine)
        one, other, plain = run.finish(
            job("one", prompt="def f():", suffix="return 1"), job("other", prompt="def f():", suffix="return 2"),
            job("plain", prompt="def f():"),
        )  # fmt: skip
        assert one.done.usage.prompt_tokens > plain.done.usage.prompt_tokens + 3
        assert len(one.ids) == len(other.ids) == 8
        [counted] = run.finish(
            Job(request_id="c", payload=CountTokens(request=Generate(prompt="def f():", suffix="return 1")))
        )
        assert decode_answer(counted.done.answer) == Counted(one.done.usage.prompt_tokens)
    finally:
        engine.close()
    [refused] = EngineRun(make_llama()).finish(job("a", prompt="def f():", suffix="return 1"))
    assert (refused.rejected.status, refused.rejected.param) == (400, "suffix")
