"""Questions about texts: tokens, texts, prompts and their lengths, without a decode. Asked of every engine alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from minilm import minilm_path
from tiny_vision import picture

from paddler.engine import Engine, Job, NoFreeSlot
from paddler.engine_settings import EngineSettings
from paddler.payload import MAX_QUESTION_BYTES
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from paddler.wire.agent import (
    ApplyTemplate,
    CountTokens,
    Detokenize,
    Generate,
    ImagePart,
    Message,
    Question,
    TextPart,
    Tokenize,
    Tool,
)
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized, decode_answer
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.answerer import MAX_AT_ONCE
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.loading import load
from workers.agent.texts import MAX_MESSAGES

MakeEngine = Callable[..., Engine]
TEXT = "Once upon a time, naïve café №5\n\n  lived \N{FOX FACE}."
TALK = (Message("system", "Be brief."), Message("user", "Who are you?"))


def question_job(request_id: str, question: Question) -> Job:
    return Job(request_id=request_id, payload=question)


def ask(run: EngineRun, *questions: Question) -> list[Answer]:
    jobs = [question_job(f"question {number}", question) for number, question in enumerate(questions)]
    return [answer_of(outcome) for outcome in run.finish(*jobs)]


def answer_of(outcome: Outcome) -> Answer:
    assert (outcome.done.reason, outcome.done.usage, outcome.ids) == (FinishReason.STOP, Usage(), [])
    return decode_answer(outcome.done.answer)


def tokens_of(run: EngineRun, text: str) -> Tokenized:
    [answer] = ask(run, Tokenize(text=text, with_pieces=True))
    assert isinstance(answer, Tokenized)
    return answer


@pytest.fixture
def run(make_engine: MakeEngine) -> EngineRun:
    return EngineRun(make_engine())


def test_tokens_are_pieces_of_the_text_and_become_it_again(run: EngineRun) -> None:
    told = tokens_of(run, TEXT)
    assert told.pieces is not None
    assert b"".join(told.pieces).decode() == TEXT
    assert len(told.pieces) == len(told.tokens) > 5
    assert ask(run, Detokenize(tokens=told.tokens), Tokenize(text=TEXT)) == [Detokenized(TEXT), Tokenized(told.tokens)]
    assert ask(run, Tokenize(text=""), Detokenize(tokens=())) == [Tokenized(()), Detokenized("")]


@pytest.mark.parametrize("request_", [Generate(messages=TALK, max_tokens=1), Generate(prompt=TEXT, max_tokens=1)])
def test_a_prompt_has_as_many_tokens_as_are_counted(run: EngineRun, request_: Generate) -> None:
    [counted] = ask(run, CountTokens(request=request_))
    [said] = run.finish(Job(request_id="said", payload=request_))
    assert counted == Counted(said.done.usage.prompt_tokens)


def test_one_longer_than_the_context_is_counted_too(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(context_size=128, n_batch=64))
    long = Generate(messages=(Message("user", "word " * 3000),))
    [counted] = ask(run, CountTokens(request=long))
    assert isinstance(counted, Counted)
    assert counted.num_tokens >= 3000


def test_an_answer_comes_with_the_next_step_and_costs_nobody_a_token(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=3))
    running = [run.start(make_job(name, f"A story of {name}", max_tokens=40)) for name in ("fox", "hare")]
    run.step_until(lambda: all(len(one.ids) >= 3 for one in running))
    asked = run.start(question_job("asked", Tokenize(text=TEXT)))
    assert run.engine.num_free_slots == 0
    with pytest.raises(NoFreeSlot):
        run.engine.start(question_job("one too many", Tokenize(text=TEXT)))
    counts = [len(one.ids) for one in running]
    run.step()
    assert isinstance(answer_of(asked), Tokenized)
    assert [len(one.ids) for one in running] == [count + 1 for count in counts]
    assert run.engine.num_free_slots == 1


def test_a_cancelled_question_has_no_answer(run: EngineRun) -> None:
    asked, other = (run.start(question_job(name, Tokenize(text=TEXT))) for name in ("a", "b"))
    run.engine.cancel("a")
    run.step()
    assert (asked.done.reason, asked.done.answer) == (FinishReason.CANCELLED, b"")
    assert isinstance(answer_of(other), Tokenized)
    assert run.engine.num_free_slots == 4


@pytest.mark.parametrize(
    ("question", "param"),
    [
        (Detokenize(tokens=(1, 10**9)), "tokens[1]"),
        (Detokenize(tokens=(-1,)), "tokens[0]"),
        (Tokenize(text="x" * (MAX_QUESTION_BYTES + 1)), "content"),
        (ApplyTemplate(request=Generate(messages=())), "messages"),
        (CountTokens(request=Generate(messages=(Message("user", "x" * (MAX_QUESTION_BYTES + 1)),))), "messages"),
        (
            CountTokens(request=Generate(messages=(Message("user", "", parts=(ImagePart(picture()),)),))),
            "messages[0].content[0]",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(run: EngineRun, question: Question, param: str) -> None:
    [outcome] = run.finish(question_job("a", question))
    assert (outcome.rejected.status, outcome.rejected.param) == (400, param)
    assert ask(run, Tokenize(text="")) == [Tokenized(())], "the engine goes on"


# With a model


def test_control_tokens_count_as_such_if_asked_and_are_written_out(make_llama: Callable[..., LlamaEngine]) -> None:
    run = EngineRun(make_llama())
    mark = "<|im_start|>"
    as_control, as_text = ask(run, Tokenize(text=mark, with_pieces=True), Tokenize(text=mark, has_control=False))
    assert isinstance(as_control, Tokenized)
    assert isinstance(as_text, Tokenized)
    assert as_control.pieces == (mark.encode(),)
    assert len(as_text.tokens) > 1
    assert ask(run, Detokenize(tokens=as_control.tokens)) == [Detokenized(mark)]


def test_the_prompt_is_what_the_template_makes(make_llama: Callable[..., LlamaEngine]) -> None:
    run = EngineRun(make_llama())
    asked = Generate(messages=TALK)
    templated, counted = ask(run, ApplyTemplate(request=asked), CountTokens(request=asked))
    assert isinstance(templated, Templated)
    assert templated.prompt.endswith("<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n")
    tokens = tokens_of(run, templated.prompt).tokens
    assert Counted(len(tokens)) == counted
    assert ask(run, CountTokens(request=asked, with_tokens=True)) == [Tokenized(tokens)]


def test_tools_are_counted(make_llama: Callable[..., LlamaEngine]) -> None:
    run = EngineRun(make_llama(context_size=2048))
    tool = Tool("look", '{"type":"object","properties":{"at":{"type":"string"}}}', "Looks at something.")
    asked = Generate(messages=TALK, tools=(tool,), max_tokens=1)
    without, counted = ask(run, CountTokens(request=Generate(messages=TALK)), CountTokens(request=asked))
    assert isinstance(without, Counted)
    assert isinstance(counted, Counted)
    assert counted.num_tokens > without.num_tokens + 20
    [said] = run.finish(Job(request_id="said", payload=asked))
    assert said.done.usage.prompt_tokens == counted.num_tokens


def test_images_are_counted_and_shown_by_their_place(
    make_llama: Callable[..., LlamaEngine], projections: dict[str, Path]
) -> None:
    run = EngineRun(make_llama(projection=projections["small"]))
    parts = (TextPart("Look:"), ImagePart(picture()))
    asked = Generate(messages=(Message("user", "Look:", parts=parts),), max_tokens=1)
    counted, templated = ask(run, CountTokens(request=asked), ApplyTemplate(request=asked))
    assert isinstance(templated, Templated)
    assert "Look:<__media__>" in templated.prompt
    [said] = run.finish(Job(request_id="said", payload=asked))
    assert counted == Counted(said.done.usage.prompt_tokens)


def test_more_messages_than_a_template_is_given_are_refused(make_llama: Callable[..., LlamaEngine]) -> None:
    asked = Generate(messages=(Message("user", "x"),) * (MAX_MESSAGES + 1))
    [outcome] = EngineRun(make_llama()).finish(question_job("a", CountTokens(request=asked)))
    assert outcome.rejected.param == "messages"


def test_a_long_text_holds_nobody_up(model: Model, make_llama: Callable[..., LlamaEngine]) -> None:
    """Spaces are the worst: a megabyte of them takes llama.cpp a second."""
    run = EngineRun(make_llama())
    other = run.start(make_job("other", "Once upon", max_tokens=500))
    run.step_until(lambda: len(other.ids) == 3)
    text = " " * (1 << 19)
    asked = run.start(question_job("a", Tokenize(text=text)))
    run.step_until(lambda: asked.end is not None)
    assert len(other.ids) > 5, "it went on meanwhile"
    answer = answer_of(asked)
    assert isinstance(answer, Tokenized)
    assert list(answer.tokens) == model.tokenize(text).tolist()


def test_a_long_text_can_be_cancelled_and_refused(make_llama: Callable[..., LlamaEngine]) -> None:
    run = EngineRun(make_llama(slots=2))
    first = run.start(question_job("first", Tokenize(text=" " * (1 << 18))))
    second = run.start(question_job("second", Detokenize(tokens=(0,) * MAX_AT_ONCE + (-1,))))
    run.step()
    run.engine.cancel("first")
    run.step_until(lambda: first.end is not None and second.end is not None)
    assert first.done.reason is FinishReason.CANCELLED
    assert second.rejected.param == f"tokens[{MAX_AT_ONCE}]"
    assert run.engine.num_free_slots == 2


def test_an_embedding_model_answers_too() -> None:
    engine = load(EngineSettings(model_path=str(minilm_path()), slots=2, threads=1))
    try:
        run = EngineRun(engine)
        told, special = ask(run, Tokenize(text="hello"), Tokenize(text="hello", adds_special=True))
        assert isinstance(told, Tokenized)
        assert isinstance(special, Tokenized)
        assert len(special.tokens) == len(told.tokens) + 2
        assert special.tokens[1:-1] == told.tokens
        # In a vocabulary of WordPiece a word begins with a space, as llama.cpp writes it.
        assert ask(run, Detokenize(tokens=told.tokens)) == [Detokenized(" hello")]
        [refused] = run.finish(question_job("a", ApplyTemplate(request=Generate(messages=TALK))))
        assert refused.rejected.param == "messages"
        assert engine.num_free_slots == 2
    finally:
        engine.close()
