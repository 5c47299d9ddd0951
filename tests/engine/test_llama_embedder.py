"""Embeddings of the real model: what `test_embedding.py` cannot ask of every engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from paddler.clock import SystemClock
from paddler.engine import Embedded, Event, Job, Rejected, Working
from paddler.testing.engine_run import EngineRun, embed_job
from paddler.wire.agent import Embed
from workers.agent.context import Context, Decoded
from workers.agent.embedder import Embedder
from workers.agent.llama import Model, Pooling
from workers.agent.llama_engine import LlamaEngine

STORY = "Once upon a time there was a small red fox who lived in a forest by the sea and told stories. "
LONG = STORY * 4


@pytest.fixture
def make_embedder(model: Model) -> Callable[..., Embedder]:
    def make(*, max_tokens: int = 256, token_s: float = 1e-3) -> Embedder:
        return Embedder(
            model, SystemClock(), pooling=Pooling.MEAN, max_tokens=max_tokens, num_threads=1, token_s=token_s
        )

    return make


def start(embedder: Embedder, job: Job) -> None:
    assert isinstance(job.payload, Embed)
    embedder.start(job, job.payload)


def finish(embedder: Embedder, *, budget_s: float = 0.2) -> list[Event]:
    events: list[Event] = []
    for _ in range(200):
        if not embedder.num_jobs:
            return events
        events += embedder.step(budget_s)
    raise AssertionError("not ended")


def vectors(events: list[Event], request_id: str = "a") -> NDArray[np.float64]:
    found = [
        data for one in events if isinstance(one, Embedded) and one.request_id == request_id for data in one.vectors
    ]
    return np.array([np.frombuffer(data, "<f4") for data in found], np.float64)


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_who_never_embeds_pays_nothing(make_embedder: Callable[..., Embedder]) -> None:
    embedder = make_embedder()
    assert not embedder.has_context
    start(embedder, embed_job("wrong", ""))
    finish(embedder)
    assert not embedder.has_context
    start(embedder, embed_job("a", "hello"))
    finish(embedder)
    assert embedder.has_context


def test_similar_sentences_are_closer(make_whole: Callable[..., LlamaEngine]) -> None:
    texts = ("A cat sits on the mat.", "A kitten is sitting on a rug.", "The stock market fell sharply on Tuesday.")
    [outcome] = EngineRun(make_whole()).finish(embed_job("a", *texts))
    cat, kitten, market = np.array([np.frombuffer(data, "<f4") for data in outcome.vectors], np.float64)
    assert cosine(cat, kitten) > max(cosine(cat, market), cosine(kitten, market)) + 0.05


def test_parts_are_pooled_as_llama_cpp_pools_the_whole(model: Model, make_embedder: Callable[..., Embedder]) -> None:
    context = Context(model, num_sequences=1, context_size=256, max_batch=256, num_threads=1, pooling=Pooling.MEAN)
    tokens = model.tokenize(LONG, adds_special=True)
    context.batch.add(tokens, 0, 0, wants_logits=True)
    assert context.decode() is Decoded.OK
    whole = context.embedding(0).astype(np.float64)
    embedder = make_embedder(token_s=1.0)
    start(embedder, embed_job("a", LONG, normalization="none"))
    events: list[Event] = []
    num_steps = 0
    while embedder.num_jobs:
        events += embedder.step(20.0)  # 20 tokens at the guessed speed, before it has learned better
        num_steps += 1
    assert num_steps > 2
    [found] = vectors(events)
    assert cosine(found, whole) > 0.999
    assert abs(np.linalg.norm(found) / np.linalg.norm(whole) - 1) < 0.01


def test_many_inputs_share_one_decode(make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = Context.decode

    def counting(self: Context) -> Decoded:
        sizes.append(self.batch.size)
        return decode(self)

    monkeypatch.setattr(Context, "decode", counting)
    embedder = make_embedder()
    start(embedder, embed_job("a", *[f"number {n}" for n in range(16)]))
    events = embedder.step(10.0)
    assert len(sizes) == 1
    assert vectors(events).shape[0] == 16


def test_inputs_that_do_not_fit_together_come_one_after_the_other(make_embedder: Callable[..., Embedder]) -> None:
    """Each takes more than half of the cells: the younger job's small inputs do not pass the older one's for ever."""
    embedder = make_embedder(max_tokens=256)
    for name in "abc":
        start(embedder, embed_job(name, LONG + STORY * 2, "short", LONG + STORY * 2))
    events = finish(embedder)
    assert [vectors(events, name).shape[0] for name in "abc"] == [3, 3, 3]
    assert cosine(vectors(events, "a")[0], vectors(events, "c")[2]) > 0.999


@pytest.mark.parametrize("trouble", [Decoded.ABORTED, Decoded.NO_ROOM])
def test_a_decode_that_fails_is_begun_again(
    make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch, trouble: Decoded
) -> None:
    """With memory whose cells cannot be counted: one input at a time from then on."""
    calm = make_embedder()
    start(calm, embed_job("a", "one", LONG, "two"))
    expected = vectors(finish(calm))
    embedder = make_embedder()
    decode, num_calls = Context.decode, 0

    def failing(self: Context) -> Decoded:
        nonlocal num_calls
        num_calls += 1
        return trouble if num_calls == 2 else decode(self)

    monkeypatch.setattr(Context, "decode", failing)
    for name in "ab":
        start(embedder, embed_job(name, "one", LONG, "two"))
    events = finish(embedder, budget_s=0.03)
    for name in "ab":
        found = vectors(events, name)
        assert all(cosine(one, other) > 0.999 for one, other in zip(found, expected, strict=True))


def test_an_input_for_which_there_is_no_room_at_all_is_an_error(
    make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Context) -> Decoded:
        return Decoded.NO_ROOM

    monkeypatch.setattr(Context, "decode", full)
    embedder = make_embedder()
    start(embedder, embed_job("a", "one", "two"))
    start(embedder, embed_job("b", "three"))
    events = finish(embedder)
    assert [event.code for event in events if isinstance(event, Rejected)] == ["engine_failed"] * 2


def test_jobs_of_long_inputs_say_that_they_go_on(
    make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, while none has a vector and not all have room: a balancer ends what is silent for long."""
    monkeypatch.setattr("workers.agent.embedder.SIGN_S", 0.0)
    embedder = make_embedder(token_s=1.0)
    for name in "abc":
        start(embedder, embed_job(name, LONG + STORY * 2))
    events = embedder.step(20.0)
    assert events == [Working(name) for name in "abc"]
    events += finish(embedder)
    assert [vectors(events, name).shape[0] for name in "abc"] == [1, 1, 1]


def test_jobs_that_are_not_even_prepared_say_that_they_go_on(
    make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.agent.embedder.SIGN_S", 0.0)
    monkeypatch.setattr("workers.agent.embedder.PREPARE_S", 0.0)
    embedder = make_embedder()
    for name in "ab":
        start(embedder, embed_job(name, "one", "two", "three"))
    assert embedder.step(0.2) == [Working("a"), Working("b")]
    events = finish(embedder)
    assert [vectors(events, name).shape[0] for name in "ab"] == [3, 3]


def test_what_fails_says_what_was_computed(
    make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make_embedder()
    start(embedder, embed_job("a", "one", LONG + STORY * 2, LONG + STORY * 2))
    events: list[Event] = []
    while not events:
        events += embedder.step(0.2)

    def full(_: Context) -> Decoded:
        return Decoded.NO_ROOM

    monkeypatch.setattr(Context, "decode", full)
    events += finish(embedder)
    num_tokens = [number for event in events if isinstance(event, Embedded) for number in event.num_tokens]
    [failed] = [event for event in events if isinstance(event, Rejected)]
    assert failed.usage.prompt_tokens == sum(num_tokens) > 0


def test_no_memory_for_a_context_fails_the_job_and_not_the_agent(
    make_embedder: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make_embedder()

    def refuse(*_: object) -> None: ...

    with monkeypatch.context() as patched:
        patched.setattr("workers.agent.llama.lib.llama_init_from_model", refuse)
        start(embedder, embed_job("a", "one"))
        [event] = finish(embedder)
    assert isinstance(event, Rejected)
    assert (event.status, "no memory" in event.message) == (500, True)
    start(embedder, embed_job("a", "one"))
    assert vectors(finish(embedder)).shape[0] == 1
