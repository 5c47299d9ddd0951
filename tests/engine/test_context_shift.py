"""Context shift: a request that asks for more tokens than fit goes on with the newer half, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from paddler.clock import SystemClock
from paddler.engine import Job, ModelError
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, make_job
from paddler.wire.agent import Generate, Message, Sampling
from paddler.wire.balancer import FinishReason
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.shifting import MAX_CONTEXTS, check_can_shift, num_discarded, num_kept, window

pytestmark = pytest.mark.timeout(240)

CELLS = 256
"""llama.cpp makes no smaller context."""
LIMIT = 96
"""What a sequence may have of them, so that a test need not write a novel."""
RANDOM = Sampling(temperature=0.8, seed=3)
STORY = "Once upon a time there was a small red fox who lived in a forest by the sea. "
Make = Callable[..., LlamaEngine]


@pytest.fixture
def make(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Engines whose sequences have 96 tokens, of a model that never ends by itself."""
    yield from engines(model, monkeypatch)


@pytest.fixture
def make_whole(whole_model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    yield from engines(whole_model, monkeypatch)


def engines(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())
    made: list[LlamaEngine] = []

    def engine(limit: int = LIMIT, **given: object) -> LlamaEngine:
        fields = {"slots": 2, "context_size": CELLS, "threads": 1, "context_shift": True} | given
        settings = EngineSettings(model_path=str(model.path), **fields)  # pyright: ignore[reportArgumentType]  # its fields
        made.append(LlamaEngine(model, settings, SystemClock()))
        made[-1]._max_tokens = limit
        return made[-1]

    yield engine
    for one in made:
        one.close()


def check_books(engine: LlamaEngine) -> None:
    """As many positions in llama.cpp as the tree says, from 0 on without a gap."""
    kv = engine._kv
    for key in kv._tree._leaves:
        length = kv._tree.length(key)
        assert engine._context.extent(key) == ((0, length - 1) if length else (-1, -1))
    for sequence in engine._sequences.values():
        if sequence.work.is_admitted:
            assert kv._tree.length(sequence.work.key) == sequence.work.num_cached
    assert kv.num_cells <= CELLS


def run_checked(engine: LlamaEngine, *jobs: Job) -> EngineRun:
    run = EngineRun(engine)
    for job in jobs:
        run.start(job)
    while any(outcome.end is None for outcome in run.outcomes.values()):
        run.step()
        check_books(engine)
    return run


@pytest.mark.parametrize("sampling", [None, RANDOM], ids=["greedy", "random"])
def test_it_goes_on_through_several_shifts(make_whole: Make, sampling: Sampling | None) -> None:
    run = run_checked(make_whole(), make_job("a", STORY, max_tokens=200, sampling=sampling))
    outcome = run.outcomes["a"]
    assert outcome.done.reason is FinishReason.LENGTH
    assert len(outcome.ids) == outcome.done.usage.completion_tokens == 200
    assert outcome.text.strip()
    assert len(set(outcome.ids[-50:])) > 3, "it still says something"


def test_before_the_first_shift_nothing_is_different(make: Make) -> None:
    shifting = run_checked(make(), make_job("a", STORY, max_tokens=110, sampling=RANDOM)).outcomes["a"]
    plain = run_checked(make(context_shift=False), make_job("a", STORY, max_tokens=110, sampling=RANDOM)).outcomes["a"]
    assert plain.done.reason is FinishReason.LENGTH
    assert shifting.ids[: len(plain.ids)] == plain.ids
    assert len(plain.ids) < LIMIT < len(shifting.ids)


def test_eight_contexts_are_the_end(make: Make, model: Model) -> None:
    """A client could ask for output without end; `resume` shortens the test, and counts."""
    job = make_job("a", STORY, max_tokens=2**31 - 1, sampling=Sampling(temperature=0.8, seed=3, ignore_eos=True))
    earlier = (model.tokenize(" the")[0].item(),) * (MAX_CONTEXTS * LIMIT - 30)
    run = EngineRun(make())
    outcome = run.start(structs.replace(job, resume_ids=earlier))
    run.finish()
    assert outcome.done.reason is FinishReason.LENGTH
    assert outcome.done.usage.completion_tokens == MAX_CONTEXTS * LIMIT
    assert len(outcome.ids) == 30


def test_without_max_tokens_the_end_of_the_context_is_the_end(make: Make) -> None:
    [outcome] = EngineRun(make()).finish(make_job("a", STORY, max_tokens=None, sampling=RANDOM))
    assert outcome.done.reason is FinishReason.LENGTH
    assert outcome.done.usage.prompt_tokens + outcome.done.usage.completion_tokens == LIMIT


def test_a_quantised_cache_is_shifted_too(make: Make) -> None:
    run_checked(make(cache_type_k="q8_0", cache_type_v="q8_0"), make_job("a", STORY, max_tokens=120))


def test_the_system_message_stays(make: Make, model: Model) -> None:
    engine = make()
    messages = (Message("system", "You are a pirate."), Message("user", "Tell me of the sea."))
    payload = Generate(messages=messages, max_tokens=150, sampling=RANDOM)
    run = EngineRun(engine)
    run.start(Job(request_id="a", payload=payload))
    run.step_until(lambda: any(sequence.num_gone for sequence in engine._sequences.values()))
    [sequence] = engine._sequences.values()
    begins = b"".join(model.piece(int(token), special=True) for token in sequence.tokens[: sequence.num_original])
    assert begins.decode() == "<|im_start|>system\nYou are a pirate.<|im_end|>\n"
    run.finish()


def test_others_share_and_hear_only_of_what_stayed(make: Make) -> None:
    """What moved was computed behind tokens that are gone: the same text again computes them, and gets what an engine
    without any of it says."""
    system = Message("system", "You are a friendly guide who knows all rivers of the world and tells of each.")
    payload = Generate(messages=(system, Message("user", "Begin.")), max_tokens=140, sampling=RANDOM)
    engine = make(128)
    run = EngineRun(engine)
    run.start(Job(request_id="a", payload=payload))
    run.finish()
    check_books(engine)
    told = run.retained["a"][-1]
    kept = num_kept(engine._encoder.num_system(payload, engine._encoder.encode(payload)), True, 128)
    assert 10 < kept == told.num_tokens < told.num_total
    assert engine._kv._tree.num_cells == kept
    [again] = run.finish(Job(request_id="b", payload=Generate(messages=payload.messages, max_tokens=8)))
    assert again.done.usage.cached_tokens == kept
    job = Job(request_id="b", payload=Generate(messages=payload.messages, max_tokens=8))
    [fresh] = EngineRun(make(128)).finish(job)
    assert again.text == fresh.text


def test_beside_others_each_says_what_it_says_alone(make: Make) -> None:
    """Its neighbour begins alike and shares the cells that stay; moving the others must not touch it."""
    system = Message("system", "You are a friendly guide who knows all rivers of the world.")

    def job(name: str, text: str, max_tokens: int) -> Job:
        messages = (system, Message("user", text))
        return Job(request_id=name, payload=Generate(messages=messages, max_tokens=max_tokens, sampling=RANDOM))

    alone = run_checked(make(), job("b", "Go on.", 20)).outcomes["b"]
    engine = make()
    run = EngineRun(engine)
    run.start(job("a", "Begin.", 150))
    run.step_until(lambda: any(sequence.num_gone for sequence in engine._sequences.values()))
    beside = run.start(job("b", "Go on.", 20))
    run.finish()
    check_books(engine)
    assert beside.done.usage.cached_tokens >= 10
    assert beside.text == alone.text


def test_a_long_shared_prompt_is_computed_anew_where_it_cannot_be_moved(make: Make) -> None:
    """Two with the same prompt of more than half the context: its cells are both their own."""
    prompt = STORY * 4
    engine = make()
    jobs = [make_job(name, prompt, max_tokens=60, sampling=RANDOM) for name in ("a", "b")]
    run = EngineRun(engine)
    run.start(jobs[0])
    run.step_until(lambda: any(sequence.is_prefilled for sequence in engine._sequences.values()))
    run.start(jobs[1])
    run.finish()
    assert [len(run.outcomes[name].ids) for name in ("a", "b")] == [60, 60]
    assert run.outcomes["b"].done.usage.cached_tokens > 60


@pytest.mark.parametrize("resume_at", [60, 77, 90, 150])
def test_another_agent_comes_to_the_same_window(make: Make, resume_at: int) -> None:
    job = make_job("a", STORY, max_tokens=200, sampling=RANDOM)
    engine = make()
    run = EngineRun(engine)
    outcome = run.start(job)
    run.step_until(lambda: len(outcome.ids) == resume_at)
    [before] = engine._sequences.values()
    other = make()
    resumed = EngineRun(other)
    resumed.start(make_job("b", STORY, max_tokens=200, sampling=RANDOM, resume=outcome, resume_at=resume_at))
    resumed.step()
    [after] = other._sequences.values()
    num = before.work.num_total
    if after.work.num_total == num:  # prefilled in one step it is a token further
        assert after.tokens[:num].tolist() == before.tokens[:num].tolist()
    else:
        assert after.tokens[:num].tolist() == before.tokens[:num].tolist()
        assert after.work.num_total == num + 1
    assert after.num_gone == before.num_gone
    resumed.finish()
    assert len(resumed.outcomes["b"].ids) == 200 - resume_at


@given(
    num_prompt=st.integers(1, 40),
    num_output=st.integers(0, 300),
    kept=st.integers(0, 16),
    max_tokens=st.integers(64, 80),
)
def test_the_window_is_what_shifting_one_by_one_leaves(
    num_prompt: int, num_output: int, kept: int, max_tokens: int
) -> None:
    kept = min(kept, num_prompt)
    expected = list(range(num_prompt))
    for token in range(num_prompt, num_prompt + num_output):
        expected.append(token)
        if len(expected) == max_tokens:
            del expected[kept : kept + num_discarded(kept, max_tokens)]
    found, gone = window(np.arange(num_prompt + num_output, dtype=np.int32), num_prompt, kept, max_tokens)
    assert found.tolist() == expected
    assert gone == num_prompt + num_output - len(expected)


def test_a_memory_that_cannot_be_moved_refuses_the_flag() -> None:
    check_can_shift(False, False)
    check_can_shift(True, True)
    with pytest.raises(ModelError, match="leave --context-shift out") as told:
        check_can_shift(True, False)
    assert told.value.kind == "SettingsInvalid"
