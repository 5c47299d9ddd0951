"""The prefix cache of the llama.cpp engine: what is computed and what is not, whose it is, and when it goes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from paddler.engine import Job, Retained
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from workers.agent.context import Context, Decoded
from workers.agent.llama import LogitArray, Model
from workers.agent.llama_engine import LlamaEngine

MakeLlama = Callable[..., LlamaEngine]
STORY = "Once upon a time there was a small red fox who lived"
LONG = "one two three four five six seven eight nine ten " * 20


@pytest.fixture
def endless(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never ends by itself."""
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())


class Watched:
    """An engine and the sizes of all batches that it computed."""

    def __init__(self, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = EngineRun(engine)
        self.engine = engine
        self.sizes: list[int] = []
        self.logits: list[LogitArray] = []
        decode = engine._context.decode

        def counted() -> Decoded:
            self.sizes.append(engine._context.batch.size)
            decoded = decode()
            if len(logits := engine._context.logits()):
                self.logits.append(logits[-1].copy())
            return decoded

        monkeypatch.setattr(engine._context, "decode", counted)

    def computed_by(self, *jobs: Job) -> tuple[int, list[Outcome]]:
        """How many tokens running these jobs computes."""
        before = sum(self.sizes)
        outcomes = self.run.finish(*jobs)
        return sum(self.sizes) - before, outcomes


@pytest.fixture
def watched(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(make_llama(context_size=2048), monkeypatch)


def check_books(engine: LlamaEngine) -> None:
    """What the tree says is what llama.cpp says of every sequence."""
    tree, context = engine._kv._tree, engine._context
    for key in range(engine.info.slots_total + engine.info.max_parked):
        assert context.extent(key) == ((0, tree.length(key) - 1) if tree.length(key) else (-1, -1))
    assert engine._kv.num_cells <= engine._scheduler.num_cells
    for key, sequence in engine._sequences.items():
        assert not sequence.work.is_admitted or sequence.work.num_cached == tree.length(key)


def num_free_cells(engine: LlamaEngine) -> int:
    """According to llama.cpp: how many tokens of an empty sequence it still takes."""
    context, num_free = engine._context, 0
    key = engine._kv.acquire("probe")
    for size in (64, 1):
        while True:
            context.batch.clear()
            context.batch.add(np.zeros(size, np.int32), num_free, key, wants_logits=True)
            if context.decode() is not Decoded.OK:
                break
            num_free += size
    engine._kv.release(key)
    return num_free


def test_a_second_turn_computes_only_what_is_new(watched: Watched) -> None:
    first, [begun] = watched.computed_by(make_job("a", LONG, max_tokens=5))
    assert first == begun.done.usage.prompt_tokens + 4
    rest, [going_on] = watched.computed_by(make_job("b", LONG + begun.text + " And then", max_tokens=5))
    usage = going_on.done.usage
    assert usage.cached_tokens > begun.done.usage.prompt_tokens, "of the answer too"
    assert rest == usage.prompt_tokens - usage.cached_tokens + 4 < 20


def test_a_running_sequence_is_shared_too(watched: Watched) -> None:
    older = watched.run.start(make_job("a", LONG, max_tokens=40))
    watched.run.step_until(lambda: len(older.ids) == 3)
    younger = watched.run.start(make_job("b", LONG + "but", max_tokens=3))
    watched.run.step_until(lambda: younger.end is not None)
    assert older.end is None
    assert younger.done.usage.cached_tokens > 190
    watched.run.finish()
    assert len(older.ids) == 40


def test_four_at_once_compute_a_new_prefix_once(watched: Watched) -> None:
    jobs = [make_job(str(n), f"{LONG} and {word}", max_tokens=3) for n, word in enumerate("abcd")]
    num_computed, outcomes = watched.computed_by(*jobs)
    num_prompt = outcomes[0].done.usage.prompt_tokens
    assert num_computed < 1.3 * num_prompt
    assert [outcome.done.usage.cached_tokens > num_prompt - 8 for outcome in outcomes] == [False, True, True, True]
    assert len({outcome.steps[0] for outcome in outcomes[1:]}) == 1, "the others go on together"


def test_four_at_once_share_a_warm_prefix(watched: Watched) -> None:
    watched.computed_by(make_job("first", LONG, max_tokens=1))
    jobs = [make_job(str(n), f"{LONG} and {word}", max_tokens=3) for n, word in enumerate("abcd")]
    num_computed, outcomes = watched.computed_by(*jobs)
    assert num_computed < 4 * (2 + 8)
    assert len({outcome.steps[0] for outcome in outcomes}) == 1
    assert len(watched.sizes) > 3


def test_who_waits_for_a_prefix_goes_on_when_its_maker_is_cancelled(watched: Watched) -> None:
    watched.engine._scheduler._max_batch = 64
    maker = watched.run.start(make_job("maker", LONG, max_tokens=3))
    waiting = watched.run.start(make_job("waiting", LONG + "then", max_tokens=3))
    other = watched.run.start(make_job("other", STORY, max_tokens=30))
    watched.run.step()
    watched.run.step()
    assert other.ids, "nobody else waits"
    [num_done] = (one.work.num_cached for one in watched.engine._sequences.values() if one.job.request_id == "maker")
    watched.engine.cancel("maker")
    watched.run.step_until(lambda: waiting.end is not None)
    assert not maker.ids
    assert waiting.done.usage.cached_tokens == num_done > 0, "what was done is not lost"
    check_books(watched.engine)


def test_tenants_that_come_together_wait_for_nobody(watched: Watched) -> None:
    jobs = [make_job(name, LONG, max_tokens=3) for name in ("ann", "bob")]
    jobs = [replace(job, payload=replace(job.payload, cache_scope=job.request_id)) for job in jobs]
    num_computed, outcomes = watched.computed_by(*jobs)
    num_prompt = outcomes[0].done.usage.prompt_tokens
    assert num_computed == 2 * (num_prompt + 2)
    assert [outcome.done.usage.cached_tokens for outcome in outcomes] == [0, 0]


@pytest.mark.parametrize("prompt", [STORY, "The capital of France is the city of"])
def test_the_answer_is_the_same_with_and_without_the_cache(make_llama: MakeLlama, prompt: str) -> None:
    """Token by token, where the sums of a prefill are those of a decode (see `make_llama`)."""
    run = EngineRun(make_llama(slots=1, n_batch=1))
    cold = run.finish(make_job("cold", prompt, max_tokens=12))[0]
    warm = run.finish(make_job("warm", prompt, max_tokens=12))[0]
    assert warm.done.usage.cached_tokens == warm.done.usage.prompt_tokens - 1
    assert warm.ids == cold.ids


def test_in_usual_batches_the_logits_are_nearly_the_same(watched: Watched) -> None:
    """And where the best token leads by more than that difference, it is the same token."""
    for prompt in (LONG, f"{STORY} in the wood. " * 8):
        watched.logits.clear()
        _, [cold] = watched.computed_by(make_job(f"cold {prompt}", prompt, max_tokens=1))
        _, [warm] = watched.computed_by(make_job(f"warm {prompt}", prompt, max_tokens=1))
        assert warm.done.usage.cached_tokens > 100
        one, other = watched.logits[-2:]
        assert np.abs(one - other).max() < 0.5
        second, best = np.sort(one)[-2:]
        assert best - second > 0.5, "a prompt with a clear answer"
        assert warm.ids == cold.ids


def test_cells_in_use_are_those_of_llama_cpp(make_llama: MakeLlama) -> None:
    engine = make_llama(context_size=512)
    EngineRun(engine).finish(*(make_job(str(n), LONG + "x" * n, max_tokens=4) for n in range(6)))
    assert engine._kv.num_parked > 3
    check_books(engine)
    num_alone = sum(engine._kv._tree.length(key) for key in engine._kv._tree.parked)
    assert engine._kv.num_cells < num_alone / 2, "they share"
    assert num_free_cells(engine) == engine.info.context_size - engine._kv.num_cells


@pytest.mark.usefixtures("endless")
def test_parked_ones_go_before_running_ones(make_llama: MakeLlama) -> None:
    engine = make_llama(slots=2, context_size=256)
    run = EngineRun(engine)
    run.finish(make_job("old", f"old {STORY * 6}", max_tokens=2), make_job("new", f"new {STORY * 6}", max_tokens=2))
    outcome = run.start(make_job("running", STORY, max_tokens=200))
    run.finish()
    assert outcome.num_preempted == 0
    assert len(outcome.ids) == 200
    assert [run.retained[name][-1].num_tokens for name in ("old", "new")] == [0, 0]
    assert run.retained["running"][-1].num_tokens > 200
    check_books(engine)


@pytest.mark.usefixtures("endless")
def test_a_long_parked_one_is_taken_from_its_end(make_llama: MakeLlama) -> None:
    """What it begins with may be what others begin with."""
    engine = make_llama(slots=1, context_size=512)
    run = EngineRun(engine)
    run.finish(make_job("old", LONG * 2, max_tokens=2))
    run.finish(make_job("running", STORY, max_tokens=110))
    told = [one.num_tokens for one in run.retained["old"]]
    assert 100 < told[-1] == told[-2] - 256
    again = run.finish(make_job("again", LONG, max_tokens=1))[0]
    assert again.done.usage.cached_tokens == told[-1]
    check_books(engine)


def test_what_stays_parked_is_bounded(make_llama: MakeLlama) -> None:
    engine = make_llama(slots=2, max_parked=3)
    run = EngineRun(engine)
    run.finish(*(make_job(str(n), f"{n} {STORY}", max_tokens=1) for n in range(40)))
    kv = engine._kv
    assert engine.info.max_parked == kv.num_parked == 3
    assert len(kv._free) == 2
    assert len(kv._request_ids) == len(kv._newest) == len(kv._tree._leaves) == len(kv._tree._buffers) == 3
    assert sum(told[-1].num_tokens > 0 for told in run.retained.values()) == 3
    check_books(engine)


def test_a_request_that_comes_back_is_told_of_once(make_llama: MakeLlama) -> None:
    """Its older sequence gives way to the newer one without a word, which would be taken for the newer one's."""
    run = EngineRun(make_llama(slots=1))
    job = make_job("a", STORY, max_tokens=3)
    run.finish(job)
    run.finish(job)
    assert [one.num_tokens > 0 for one in run.retained["a"]] == [True] * 4
    assert run.engine.num_free_slots == 1


def refuse(*_: object) -> bool:
    return False


@pytest.mark.parametrize("why", ["recurrent", "cannot be cut"])
def test_memory_that_cannot_be_shared_is_not(
    make_llama: MakeLlama, model: Model, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "recurrent":
        monkeypatch.setattr(model, "is_cuttable", False)
    else:
        monkeypatch.setattr(Context, "remove", refuse)
    engine = make_llama()
    monkeypatch.undo()
    assert engine.info.max_parked == 0
    run = EngineRun(engine)
    outcomes = run.finish(*(make_job(str(n), STORY, max_tokens=4) for n in range(6)))
    assert {outcome.done.usage.cached_tokens for outcome in outcomes} == {0}
    assert run.retained["0"][-1] == Retained("0", 0, outcomes[0].done.usage.prompt_tokens + 3)
    assert engine._kv.num_cells == 0


def test_a_prefix_with_a_hole_is_not_used(make_llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sliding-window memory may have given its first cells away."""
    engine = make_llama(slots=1, n_batch=1)
    run = EngineRun(engine)
    [cold] = run.finish(make_job("a", STORY, max_tokens=6))
    extent = engine._context.extent

    def with_hole(key: int) -> tuple[int, int]:
        return 3, extent(key)[1]

    monkeypatch.setattr(engine._context, "extent", with_hole)
    [again] = run.finish(make_job("b", STORY, max_tokens=6))
    assert again.done.usage.cached_tokens == 0
    assert again.ids == cold.ids


def test_an_interrupted_step_leaves_the_books_true(make_llama: MakeLlama) -> None:
    engine = make_llama(slots=2)
    run = EngineRun(engine)
    run.finish(make_job("a", LONG, max_tokens=3))
    run.start(make_job("b", LONG + "more", max_tokens=3))
    engine.interrupt()
    run.step()
    check_books(engine)
    run.finish()
    check_books(engine)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("seed", range(2))
def test_the_books_are_true_whatever_comes(make_llama: MakeLlama, seed: int) -> None:
    """Families of prompts that share beginnings, cancels, too few cells, few places to park."""
    chance = random.Random(seed)
    engine = make_llama(slots=4, context_size=256, max_parked=5)
    run = EngineRun(engine)
    for n in range(12):
        beginning = " ".join(str(chance.choice((1, 1, 1, 2))) * 3 for _ in range(chance.randrange(1, 20)))
        job = make_job(str(n), beginning, max_tokens=chance.randrange(1, 9))
        job = replace(job, payload=replace(job.payload, cache_scope=chance.choice(("", "", "ann"))))
        run.step_until(lambda: engine.num_free_slots > 0)
        run.start(job)
        if chance.random() < 0.2:
            engine.cancel(str(chance.randrange(n + 1)))
        run.step()
        check_books(engine)
    run.finish()
    check_books(engine)
    assert not engine._sequences
    assert len(engine._kv._free) + engine._kv.num_parked == 9
