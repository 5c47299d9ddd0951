"""Embeddings, asked of every engine alike; see `test_contract.py`. Vectors of a model are compared with each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from paddler.engine import Done, Embedded, Engine, Event, NoFreeSlot
from paddler.testing.engine_run import EngineRun, Outcome, embed_job, make_job
from paddler.wire.balancer import FinishReason

MakeEngine = Callable[..., Engine]
TEXTS = ("A cat sits on the mat.", "Shares fell on Tuesday.", "x", "Grüße aus Köln ☃", "one two three four five")
LONG = "one two three four five six seven eight nine ten " * 30


@pytest.fixture
def run(make_engine: MakeEngine) -> EngineRun:
    return EngineRun(make_engine())


def vectors(outcome: Outcome) -> NDArray[np.float64]:
    return np.array([np.frombuffer(data, "<f4") for data in outcome.vectors], np.float64)


def assert_alike(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    """The same but for rounding, which depends on who shares a batch."""
    assert found.shape == expected.shape
    cosines = np.sum(found * expected, 1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1))
    assert np.all(cosines > 0.999), cosines


def test_each_input_has_a_vector_of_length_one_in_order(run: EngineRun) -> None:
    [together] = run.finish(embed_job("all", *TEXTS))
    found = vectors(together)
    assert found.shape[0] == len(TEXTS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    alone = run.finish(*(embed_job(f"{n}", text) for n, text in enumerate(TEXTS)))
    assert_alike(found, np.concatenate([vectors(one) for one in alone]))
    distances = np.linalg.norm(found[:, None] - found[None], axis=2)
    assert np.all(distances[~np.eye(len(TEXTS), dtype=bool)] > 0.05), "each is another one"


def test_usage_counts_the_tokens_of_all_inputs(run: EngineRun) -> None:
    [outcome] = run.finish(embed_job("a", *TEXTS))
    assert outcome.done.reason is FinishReason.STOP
    assert len(outcome.num_tokens) == len(TEXTS)
    assert all(outcome.num_tokens)
    usage = outcome.done.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (sum(outcome.num_tokens), 0, 0)


def test_a_job_takes_a_slot_and_gives_it_back(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=2))
    run.start(embed_job("a", *TEXTS))
    run.start(make_job("b", "hello", max_tokens=3))
    assert run.engine.num_free_slots == 0
    with pytest.raises(NoFreeSlot):
        run.engine.start(embed_job("c", *TEXTS))
    run.finish()
    assert run.engine.num_free_slots == 2
    assert "a" not in run.retained, "nothing of it stays in the cache"


def test_normalization_is_as_asked(run: EngineRun) -> None:
    forms = ("l2", "none", "rms_norm")
    l2, plain, rms = (vectors(one) for one in run.finish(*(embed_job(f, *TEXTS[:2], normalization=f) for f in forms)))
    for scaled in (l2, rms):
        assert_alike(plain, scaled)
    assert np.allclose(np.linalg.norm(l2, axis=1), 1, atol=1e-5)
    assert np.allclose(np.sqrt(np.mean(rms**2, 1)), 1, atol=1e-2)
    flat = vectors(run.finish(embed_job("flat", *TEXTS[:2], normalization="rms_norm", rms_epsilon=1.0))[0])
    assert np.all(np.sqrt(np.mean(flat**2, 1)) < 1)


def test_an_input_that_takes_many_steps_is_one_vector(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine())
    [long] = run.finish(embed_job("a", LONG, "short"))
    assert vectors(long).shape[0] == 2
    [again] = run.finish(embed_job("b", "short", LONG))
    assert_alike(vectors(again), vectors(long)[::-1])


def test_a_continuation_does_only_what_is_left(run: EngineRun) -> None:
    [whole] = run.finish(embed_job("a", *TEXTS))
    [rest] = run.finish(embed_job("b", *TEXTS, embedded=tuple(whole.num_tokens[:2])))
    assert_alike(vectors(rest), vectors(whole)[2:])
    assert rest.done.usage == whole.done.usage
    [nothing] = run.finish(embed_job("c", *TEXTS, embedded=tuple(whole.num_tokens)))
    assert (nothing.vectors, nothing.done.usage) == ([], whole.done.usage)


def test_a_continuation_of_another_model_is_rejected(run: EngineRun) -> None:
    [whole] = run.finish(embed_job("a", *TEXTS))
    embedded, size = tuple(whole.num_tokens[:2]), len(whole.vectors[0]) // 4
    [same] = run.finish(embed_job("b", *TEXTS, embedded=embedded, vector_size=size))
    assert len(same.vectors) == len(TEXTS) - 2
    [other] = run.finish(embed_job("c", *TEXTS, embedded=embedded, vector_size=size + 1))
    assert (other.rejected.code, other.vectors) == ("engine_failed", [])
    assert "another model" in other.rejected.message
    assert other.rejected.usage.prompt_tokens == sum(embedded), "what was computed is charged"


def test_cancel_frees_the_slot_by_the_next_step(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=1))
    for num_steps in (0, 1):
        outcome = run.start(embed_job(str(num_steps), *[f"{LONG} {n}" for n in range(8)]))
        for _ in range(num_steps):
            run.step()
        run.engine.cancel(str(num_steps))
        run.step()
        assert outcome.done.reason is FinishReason.CANCELLED
        assert run.engine.num_free_slots == 1
    assert len(run.finish(embed_job("after", *TEXTS))[0].vectors) == len(TEXTS)


def test_a_request_cancelled_and_started_again_in_one_round_is_another_job(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.start(embed_job("a", "first"))
    engine.cancel("a")
    engine.start(embed_job("a", "second"))
    events = engine.step()
    while not isinstance(events[-1], Done) or len(events) < 2:
        events += engine.step()
    assert [type(event) for event in events] == [Done, Embedded, Done]


def test_an_input_longer_than_the_context_is_rejected_by_its_place(run: EngineRun) -> None:
    [good, bad] = run.finish(embed_job("good", *TEXTS), embed_job("bad", "short", LONG * 6, first=16))
    assert (bad.rejected.code, bad.rejected.status) == ("context_length_exceeded", 400)
    assert bad.rejected.param == "input[17]"
    assert "input[17]" in bad.rejected.message
    assert "1024" in bad.rejected.message
    assert bad.vectors == []
    assert len(good.vectors) == len(TEXTS)
    [alone] = run.finish(embed_job("alone", LONG * 6, is_single=True))
    assert alone.rejected.param == "input"
    assert alone.rejected.message.startswith("input has ")
    assert run.engine.num_free_slots == 4


def test_a_wrong_field_is_rejected_by_name(run: EngineRun) -> None:
    wrong = {
        "input": embed_job("a"),
        "input[1]": embed_job("b", "x", ""),
        "dimensions": embed_job("c", "x", dimensions=100_000),
        "rms_epsilon": embed_job("d", "x", rms_epsilon=float("nan")),
    }
    for param, outcome in zip(wrong, run.finish(*wrong.values()), strict=True):
        assert (outcome.rejected.code, outcome.rejected.param) == ("invalid_field", param)
    [size] = {len(data) // 4 for data in run.finish(embed_job("e", "x"))[0].vectors}
    assert str(size) in run.outcomes["c"].rejected.message
    assert run.finish(embed_job("f", "x", dimensions=size))[0].vectors


def test_a_shortened_vector_is_the_beginning_normalised_again(run: EngineRun) -> None:
    whole = vectors(run.finish(embed_job("whole", *TEXTS))[0])
    size = whole.shape[1]
    ways: list[dict[str, Any]] = [{"dimensions": size}, {"dimensions": 7}, {"dimensions": 1}]
    ways += [{"dimensions": 7, "normalization": "none"}, {"dimensions": 7, "normalization": "rms_norm"}]
    jobs = [embed_job(str(number), *TEXTS, **way) for number, way in enumerate(ways)]
    same, short, one, plain, rms = map(vectors, run.finish(*jobs))
    assert_alike(same, whole)
    assert np.all(np.linalg.norm(whole[:, :7], axis=1) < 0.99), "they have to be normalised again"
    for found in (short, plain, rms):
        assert_alike(found, whole[:, :7])
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    assert np.allclose(np.mean(rms**2, axis=1), 1, atol=1e-3)
    assert np.allclose(np.abs(one), 1)


def test_a_shortened_job_goes_on(run: EngineRun) -> None:
    [done] = run.finish(embed_job("a", "one", "two", dimensions=7, embedded=(3,), vector_size=7))
    assert (len(done.vectors), len(done.vectors[0])) == (1, 28)
    [other] = run.finish(embed_job("b", "one", "two", dimensions=7, embedded=(3,), vector_size=8))
    assert other.rejected.code == "engine_failed"


def test_generation_goes_on_in_every_step(run: EngineRun) -> None:
    told = run.start(make_job("text", "Once upon a time", max_tokens=200))
    run.step_until(lambda: len(told.ids) == 3)
    embedding = run.start(embed_job("a", *[f"{text} {n}" for n in range(4) for text in TEXTS]))
    begin = run.num_steps
    run.step_until(lambda: embedding.end is not None)
    assert told.steps[3:] == list(range(begin + 1, run.num_steps + 1))
    assert len(embedding.vectors) == 20


def test_jobs_share_the_steps(run: EngineRun) -> None:
    """One of many inputs does not make one of a single input wait for its end."""
    big = run.start(embed_job("big", *[f"{LONG} {n}" for n in range(12)]))
    run.step()
    small = run.start(embed_job("small", "one two three"))
    run.step_until(lambda: small.end is not None, max_steps=20)
    assert big.end is None


def test_what_the_cache_holds_is_not_touched(run: EngineRun) -> None:
    run.finish(make_job("a", LONG, max_tokens=2))
    run.finish(*(embed_job(f"e{n}", LONG) for n in range(3)))
    assert len(run.retained["a"]) == 2
    again = run.finish(make_job("b", LONG, max_tokens=2))[0].done.usage
    assert again.cached_tokens == again.prompt_tokens - 1
    assert not [event for name in run.retained if name.startswith("e") for event in run.retained[name]]


def test_events_are_in_order(run: EngineRun) -> None:
    run.start(embed_job("a", *TEXTS))
    events: list[Event] = []
    while run.engine.num_free_slots < 4:
        events += run.step()
    kinds = [type(event) for event in events]
    assert all(earlier is Embedded for earlier, _ in pairwise(kinds))
    assert kinds[-1] is Done


def test_a_preempted_job_goes_on(run: EngineRun) -> None:
    """Only the scripted engine does that, when it is told to."""
    [whole] = run.finish(embed_job("a", "[[preempt=1]] a", *TEXTS))
    assert len(whole.vectors) == 1 + len(TEXTS)
    assert whole.done.usage.prompt_tokens == sum(whole.num_tokens)
