"""What only the llama.cpp engine does: KV pressure, interruption, names, and which memory it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.engine import ModelError, Progress, Working
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, embed_job, make_job
from paddler.wire.agent import Generate, Message, Sampling
from paddler.wire.balancer import Usage
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.loading import load
from workers.agent.naming import name_of
from workers.agent.phases import Phase
from workers.agent.prompt import PromptEncoder
from workers.agent.scheduler import TILE, Plan, Scheduler
from workers.agent.templates import ChatTemplate
from workers.agent.tokens import TokenArray

MakeLlama = Callable[..., LlamaEngine]
STORY = "Once upon a time there was a small red fox who lived"
RANDOM = Sampling(temperature=1.0, seed=7)


@pytest.fixture
def endless(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never ends by itself, so that jobs become as long as the test needs."""
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(("prompt", "num_others"), [(STORY, 2), (STORY * 6, 0)], ids=["below a tile", "in tiles"])
def test_in_usual_batches_a_job_goes_on_with_the_same_bits(make_llama: MakeLlama, prompt: str, num_others: int) -> None:
    """What was sampled is computed again as it was the first time, below a tile even beside others. These go on to the
    end: cells that they leave would be filled by the job and change the order in which attention adds."""

    def run() -> EngineRun:
        engine = make_llama()
        # The whole prompt fits a step on a slow machine too.
        engine._scheduler = Scheduler(num_cells=1024, max_batch=256, prefill_token_s=1e-6)
        return EngineRun(engine)

    [whole] = run().finish(make_job("a", prompt, max_tokens=80, sampling=RANDOM))
    assert (whole.done.usage.prompt_tokens < TILE) == (prompt == STORY)
    busy = run()
    for number in range(num_others):
        busy.start(make_job(str(number), STORY, max_tokens=40, sampling=replace(RANDOM, seed=number)))
    [rest] = busy.finish(make_job("b", prompt, max_tokens=80, sampling=RANDOM, resume=whole, resume_at=60))
    assert rest.ids == whole.ids[60:]


def test_a_long_prompt_says_that_it_goes_on(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does one that waits in its slot for what it computes; once they speak there are no more signs."""
    monkeypatch.setattr("workers.agent.signs.SIGN_S", 0.0)
    engine = make_llama()
    engine._scheduler = Scheduler(num_cells=1024, max_batch=64, prefill_token_s=1e-6)
    for name in "ab":
        engine.start(make_job(name, STORY * 20, max_tokens=4))
    steps = list(iter(engine.step, []))
    has_spoken = [any(isinstance(event, Progress) for event in events) for events in steps]
    num_silent = has_spoken.index(True)
    assert num_silent > 2
    assert all(events == [Working("a"), Working("b")] for events in steps[:num_silent])
    assert not any(isinstance(event, Working) for events in steps[num_silent + 1 :] for event in events)


@pytest.mark.parametrize("sampling", [None, RANDOM], ids=["greedy", "random"])
def test_a_preempted_job_goes_on_as_if_nothing_had_happened(make_llama: MakeLlama, sampling: Sampling | None) -> None:
    [whole] = EngineRun(make_llama(slots=1, n_batch=1)).finish(make_job("a", STORY, max_tokens=16, sampling=sampling))
    engine = make_llama(slots=1, n_batch=1)
    run = EngineRun(engine)
    outcome = run.start(make_job("a", STORY, max_tokens=16, sampling=sampling))
    run.step_until(lambda: len(outcome.ids) == 9)
    plan = engine._scheduler.plan
    engine._scheduler.plan = lambda works, used_s=0.0: Plan(preempted=tuple(work.key for work in works))
    run.step()
    engine._scheduler.plan = plan
    assert outcome.num_preempted == 1
    run.finish()
    assert outcome.ids == whole.ids
    assert outcome.text == whole.text
    num_prompt = whole.done.usage.prompt_tokens
    assert outcome.done == replace(whole.done, text=outcome.done.text, usage=Usage(num_prompt, 16, num_prompt))


@pytest.mark.usefixtures("endless")
def test_under_kv_pressure_the_youngest_goes_back_and_the_oldest_never_stops(make_llama: MakeLlama) -> None:
    """Four of about 55 tokens each fit into 256 cells, but not with the 40 they want to add."""
    engine = make_llama(slots=4, context_size=256)
    run = EngineRun(engine)
    outcomes = [run.start(make_job(str(n), f"{STORY} {n} " * 4, max_tokens=40)) for n in range(4)]
    run.finish()
    assert engine.num_preempted > 0
    assert [len(outcome.ids) for outcome in outcomes] == [40] * 4
    first = outcomes[0].steps
    assert first == list(range(first[0], first[0] + len(first))), "a token in every step"


@pytest.mark.usefixtures("endless")
def test_a_cache_with_fewer_cells_than_counted_is_survived(make_llama: MakeLlama) -> None:
    """As with memory that is not one cell a token: decode says no, and the engine learns what fits."""
    engine = make_llama(slots=4, context_size=256)
    engine._scheduler.num_cells = 4096
    jobs = [make_job(str(n), f"{STORY} {n} " * 4, max_tokens=40) for n in range(4)]
    outcomes = EngineRun(engine).finish(*jobs)
    assert engine._scheduler.num_cells < 300
    assert [len(outcome.ids) for outcome in outcomes] == [40] * 4


def test_one_job_that_fills_such_a_cache_alone_ends_with_length(make_llama: MakeLlama) -> None:
    engine = make_llama(slots=1, context_size=256)
    engine._max_tokens = engine._vision._encoder._max_tokens = 4096
    [outcome] = EngineRun(engine).finish(make_job("a", "one two three " * 73, max_tokens=None))
    assert outcome.done.reason == "length"
    assert 20 < len(outcome.ids) < 50


def test_an_interrupted_step_is_repeated(make_llama: MakeLlama) -> None:
    [whole] = EngineRun(make_llama(slots=1, n_batch=1)).finish(make_job("a", STORY, max_tokens=10))
    engine = make_llama(slots=1, n_batch=1)
    run = EngineRun(engine)
    outcome = run.start(make_job("a", STORY, max_tokens=10))
    for _ in range(25):
        engine.interrupt()
        assert run.step() == []
        run.step()
    assert outcome.ids == whole.ids


def test_an_interruption_is_of_one_step_in_both_contexts(make_llama: MakeLlama) -> None:
    """Generation is interrupted; the embeddings that come next are not."""
    engine = make_llama(slots=2)
    run = EngineRun(engine)
    run.finish(embed_job("makes their context", "hello"))
    run.start(make_job("a", STORY, max_tokens=10))
    engine.interrupt()
    assert run.step() == []
    embedded = run.start(embed_job("b", "hello"))
    run.step()
    assert len(embedded.vectors) == 1
    run.finish()


def test_many_jobs_leave_no_sampler_behind(make_llama: MakeLlama) -> None:
    engine = make_llama(slots=4)
    EngineRun(engine).finish(*(make_job(str(n), "a", max_tokens=1, sampling=RANDOM) for n in range(50)))
    assert engine.num_free_slots == 4
    assert not engine._sequences
    assert not engine._started


def test_load_reports_progress_and_names_the_model(model_path: Path) -> None:
    seen: list[float] = []
    phases: list[Phase] = []

    def report(phase: Phase, fraction: float) -> None:
        phases.append(phase)
        seen.append(fraction)

    engine = load(EngineSettings(model_path=str(model_path), slots=2, context_size=512), report)
    assert engine.info.model == "smollm2-135m-instruct"
    assert (engine.info.slots_total, engine.info.context_size) == (2, 512)
    assert 2.5 < engine.info.bytes_per_token < 6
    assert "llama.cpp" in engine.info.build
    assert seen[phases.index(Phase.WARMING_UP) - 1] == 1.0
    assert phases == sorted(phases, key=list(Phase).index)
    engine.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 0},
        {"slots": 10_000},
        {"slots": 4, "n_batch": 2},
        {"context_size": 0},
        {"context_size": 2**31},
        {"threads": 0},
    ],
)
def test_settings_out_of_range_are_a_clear_error(model: Model, model_path: Path, wrong: dict[str, int]) -> None:
    settings = replace(EngineSettings(model_path=str(model_path), slots=2), **wrong)
    with pytest.raises(ModelError, match="must be between"):
        LlamaEngine(model, settings, SystemClock())


@pytest.mark.parametrize(
    ("stem", "general", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1", "x", "smollm2-135m-instruct"),
        ("Qwen3-8B-Q4_K_M-00001-of-00003", "x", "qwen3-8b"),
        ("gemma 3 270m IT-bf16", "x", "gemma-3-270m-it"),
        ("Meta-Llama-3.1-8B.IQ2_XXS", "x", "meta-llama-3.1-8b"),
        ("model", "Tiny Model", "tiny-model"),
        ("74a4da8c9fdbcd15bd1f6d01d621410d31c6fc00986f5eb687824e7b93d7a9db", "Named Inside", "named-inside"),
        ("???", "", "model"),
    ],
)
def test_names(model: Model, monkeypatch: pytest.MonkeyPatch, stem: str, general: str, expected: str) -> None:
    monkeypatch.setattr(model, "path", Path(f"/models/{stem}.gguf"))
    monkeypatch.setattr(model, "metadata", {"general.name": general})
    assert name_of(model) == expected


def encoder(model: Model, template: str | None) -> PromptEncoder:
    made = ChatTemplate(template, bos="<s>", eos="</s>", today=lambda: datetime.now(UTC)) if template else None
    return PromptEncoder(model, made, name="m", max_tokens=100)


def test_a_model_without_template_takes_prompts_only(make_llama: MakeLlama) -> None:
    engine = make_llama(slots=1)
    engine._vision._encoder = encoder(engine._model, None)
    run = EngineRun(engine)
    job = make_job("a", STORY, max_tokens=2)
    chat = Generate(messages=(Message("user", "hi"),))
    first, second = run.finish(replace(job, payload=chat), replace(job, request_id="b"))
    assert first.rejected.param == "messages"
    assert "no usable chat template: send a prompt" in first.rejected.message
    assert len(second.ids) == 2


def test_a_fault_of_ours_on_one_job_leaves_the_others_alone(
    make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_llama(slots=2)
    encode = engine._vision._encoder.encode

    def fail_on_one(payload: Generate) -> TokenArray:
        return encode(payload) if payload.prompt == STORY else encode(None)  # pyright: ignore[reportArgumentType]  # the fault

    monkeypatch.setattr(engine._vision._encoder, "encode", fail_on_one)
    good, bad = EngineRun(engine).finish(make_job("a", STORY, max_tokens=2), make_job("b", "other"))
    assert (bad.rejected.code, bad.rejected.status) == ("engine_failed", 500)
    assert len(good.ids) == 2
    assert engine.num_free_slots == 2


def test_a_wanted_beginning_token_is_there_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "adds_bos", True)
    bos = model.piece(model.bos, special=True).decode()
    plain = encoder(model, None).encode(Generate(prompt="hello")).tolist()
    assert plain[0] == model.bos
    assert plain.count(model.bos) == 1
    assert encoder(model, None).encode(Generate(prompt=f"{bos}hello")).tolist() == plain
    assert encoder(model, None).encode(Generate(prompt="")).tolist() == [model.bos]


def test_a_huge_prompt_is_refused_without_tokenising_it(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Model, "tokenize")
    huge = "word " * 100_000
    for payload in (Generate(prompt=huge), Generate(messages=(Message("user", "a"),) * 101)):
        with pytest.raises(Exception, match="at least"):
            encoder(model, "{{ messages[0].content }}").encode(payload)
