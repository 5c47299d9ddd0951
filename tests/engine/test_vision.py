"""Images in the llama engine: what they give, what of them is reused, and who waits for them."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_vision import picture
from vision_calls import ask, reference

from paddler.testing.engine_run import EngineRun, make_job
from paddler.wire.agent import Generate, Sampling
from workers.agent.images import read_image
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine
from workers.agent.mtmd import ImageChunk, Projector, Rows, mtmd

MakeLlama = Callable[..., LlamaEngine]
KINDS = ("janus_pro", "gemma3")
NUM_TOKENS = {"janus_pro": 64, "gemma3": 16}
"""Of an image."""
STORY = "Once upon a time there was a small red fox who lived"


@pytest.fixture
def endless(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never ends by itself."""
    monkeypatch.setattr(model, "end_tokens", frozenset[int]())


@pytest.fixture
def make_seeing(make_llama: MakeLlama, projections: dict[str, Path]) -> MakeLlama:
    def make(kind: str = "janus_pro", **settings: Any) -> LlamaEngine:
        return make_llama(projection=projections[kind], **settings)

    return make


def check_books(engine: LlamaEngine) -> None:
    """What the tree says is what llama.cpp says of every sequence."""
    tree, context = engine._kv._tree, engine._context
    for key in range(engine.info.slots_total + engine.info.max_parked):
        assert context.extent(key) == ((0, tree.length(key) - 1) if tree.length(key) else (-1, -1))
    for key, sequence in engine._sequences.items():
        assert not sequence.work.is_admitted or sequence.work.num_cached == tree.length(key)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(("kind", "n_batch"), [("janus_pro", 1), ("gemma3", 48)])
def test_the_answer_is_that_of_llama_cpps_own_helper(make_seeing: MakeLlama, kind: str, n_batch: int) -> None:
    """To the bit: below 64 tokens a batch gives the same however it is cut."""
    engine = make_seeing(kind, n_batch=n_batch, slots=1)
    job = ask("a", "What is", picture(1), "and", picture(2), "?", max_tokens=10)
    [outcome] = EngineRun(engine).finish(job)
    ids, first = reference(engine, job, n_batch=n_batch, num_tokens=10)
    assert outcome.ids == ids
    assert outcome.logprobs[0] == first


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_depends_on_the_image(make_seeing: MakeLlama, kind: str) -> None:
    run = EngineRun(make_seeing(kind, slots=1))
    one, other = run.finish(ask("a", "See", picture(1)), ask("b", "See", picture(2)))
    assert one.logprobs[0] != other.logprobs[0]
    num_text = one.done.usage.prompt_tokens - NUM_TOKENS[kind]
    assert 10 < num_text < 60, "usage counts the image's tokens"
    assert other.done.usage.prompt_tokens == one.done.usage.prompt_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_image_again_is_not_computed_again(
    make_seeing: MakeLlama, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[ImageChunk] = []
    encode = Projector.encode

    def counted(projector: Projector, chunk: ImageChunk) -> Rows:
        encoded.append(chunk)
        return encode(projector, chunk)

    monkeypatch.setattr(Projector, "encode", counted)
    engine = make_seeing(kind, slots=1)
    run = EngineRun(engine)
    [cold] = run.finish(ask("cold", "See", picture(1), "there"))
    [warm] = run.finish(ask("warm", "See", picture(1), "there"))
    assert len(encoded) == 1
    assert warm.done.usage.cached_tokens == warm.done.usage.prompt_tokens - 1
    assert cold.done.usage.cached_tokens == 0
    # Other bytes, the same pixels.
    [again] = run.finish(ask("again", "See", picture(1, kind="GIF"), "there"))
    assert again.done.usage.cached_tokens in (warm.done.usage.cached_tokens, num_before(run, "cold"))
    check_books(engine)


def num_before(run: EngineRun, name: str) -> int:
    """Tokens before the image of the message that `name` asked."""
    engine, payload = run.engine, run._jobs[name].payload
    assert isinstance(engine, LlamaEngine)
    assert isinstance(payload, Generate)
    while (prompt := engine._vision.read(-1, payload)) is None:
        engine._vision.wait(1)
    return prompt.pictures.upcoming(0)[0].start


@pytest.mark.parametrize("kind", KINDS)
def test_another_image_is_never_taken_for_it(make_seeing: MakeLlama, kind: str) -> None:
    """Of the same size and with the same text around it, one pixel different."""
    base = np.asarray(read_image(picture(1), 64)).copy()
    base[3, 3, 0] ^= 1

    into = io.BytesIO()
    Image.fromarray(base).save(into, "PNG")
    engine = make_seeing(kind, slots=1)
    run = EngineRun(engine)
    [one] = run.finish(ask("one", "See", picture(1), "there"))
    [other] = run.finish(ask("other", "See", into.getvalue(), "there"))
    assert 0 < other.done.usage.cached_tokens == num_before(run, "one")
    [cold] = EngineRun(make_seeing(kind, slots=1)).finish(ask("other", "See", into.getvalue(), "there"))
    if kind == "gemma3":  # the others' batches are of a tile and more
        assert other.logprobs[0] == cold.logprobs[0]
    assert one.logprobs[0] != other.logprobs[0]
    check_books(engine)


def test_the_order_of_images_counts(make_seeing: MakeLlama) -> None:
    run = EngineRun(make_seeing("gemma3", slots=1))
    one, other = run.finish(
        ask("a", "See", picture(1), "and", picture(2)), ask("b", "See", picture(2), "and", picture(1))
    )
    assert other.done.usage.cached_tokens == num_before(run, "a")
    assert one.logprobs[0] != other.logprobs[0]
    [third] = run.finish(ask("c", "See", picture(1), "and", picture(1)))
    assert num_before(run, "a") + 16 < third.done.usage.cached_tokens < one.done.usage.prompt_tokens - 16


def test_tenants_do_not_share_an_image(make_seeing: MakeLlama) -> None:
    run = EngineRun(make_seeing(slots=1))
    outcomes = run.finish(*(ask(scope, "See", picture(1), scope=scope) for scope in ("ann", "bob")))
    assert [outcome.done.usage.cached_tokens for outcome in outcomes] == [0, 0]


def test_four_at_once_with_one_image_compute_it_once(make_seeing: MakeLlama) -> None:
    engine = make_seeing()
    run = EngineRun(engine)
    outcomes = run.finish(*(ask(str(n), "See", picture(1), f"and say {word}") for n, word in enumerate("abcd")))
    assert sorted(outcome.done.usage.cached_tokens > 64 for outcome in outcomes) == [False, True, True, True]
    check_books(engine)


def test_requests_of_text_are_what_they_were(make_llama: MakeLlama, make_seeing: MakeLlama) -> None:
    """Bit by bit, and so is one beside an image."""
    job = make_job("a", STORY, max_tokens=12, logprobs=5)
    [without] = EngineRun(make_llama()).finish(job)
    [alone] = EngineRun(make_seeing()).finish(job)
    run = EngineRun(make_seeing("gemma3"))
    beside, _ = run.finish(job, ask("b", picture(1), "?"))
    assert without.logprobs == alone.logprobs == beside.logprobs
    assert without.ids == alone.ids == beside.ids


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("kind", KINDS)
def test_streams_go_on_while_an_image_is_encoded(
    make_seeing: MakeLlama, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Projector.encode
    begun, enough = threading.Event(), threading.Event()

    def slow(projector: Projector, chunk: ImageChunk) -> Rows:
        begun.set()
        assert enough.wait(30)  # as long as the test likes: a large encoder on a small machine
        return encode(projector, chunk)

    monkeypatch.setattr(Projector, "encode", slow)
    run = EngineRun(make_seeing(kind))
    other = run.start(make_job("other", STORY, max_tokens=500))
    run.step_until(lambda: len(other.ids) == 3)
    seeing = run.start(ask("seeing", picture(1), "?", max_tokens=3))
    run.step_until(begun.is_set)
    num_before = len(other.ids)
    for number in range(8):
        run.step()
        assert len(other.ids) == num_before + number + 1, "a token in every step"
    assert not seeing.ids
    enough.set()
    run.engine.cancel("other")
    run.step_until(lambda: seeing.end is not None)
    assert seeing.ids


@pytest.mark.parametrize("n_batch", [7, 64])
def test_an_image_may_be_computed_in_pieces(make_seeing: MakeLlama, n_batch: int) -> None:
    engine = make_seeing(slots=2, n_batch=n_batch)
    run = EngineRun(engine)
    job = ask("a", picture(1), "and", picture(2), "?")
    [outcome] = run.finish(job)
    [whole] = EngineRun(make_seeing(slots=2)).finish(job)
    assert outcome.done.usage == whole.done.usage
    assert abs(outcome.logprobs[0].logprob - whole.logprobs[0].logprob) < 0.5
    check_books(engine)


def test_an_image_that_must_be_whole_and_is_too_large_is_refused(make_seeing: MakeLlama) -> None:
    [outcome] = EngineRun(make_seeing("gemma3", n_batch=15)).finish(ask("a", "See", picture(1)))
    assert outcome.rejected.param == "messages[0].content[1]"
    assert "16 tokens" in outcome.rejected.message


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("kind", ["small", "gemma3"])
def test_another_agent_goes_on_after_any_token(make_seeing: MakeLlama, kind: str) -> None:
    question = ("What is", picture(1), "and", picture(2), "?")
    sampling = Sampling(temperature=0.8, seed=5)
    # Nothing is parked, because cells left by others change the order in which attention adds.
    settings: dict[str, Any] = {"slots": 1, "n_batch": 1 if kind == "small" else 48, "max_parked": 0}
    [whole] = EngineRun(make_seeing(kind, **settings)).finish(ask("a", *question, sampling=sampling))
    assert len(whole.ids) == 8
    other = EngineRun(make_seeing(kind, **settings))
    for num in range(8):
        job = ask(f"after {num}", *question, sampling=sampling, resume=whole, resume_at=num)
        [rest] = other.finish(job)
        assert whole.ids[:num] + rest.ids == whole.ids
        assert "".join(whole.pieces[:num]) + rest.text == whole.text
        assert rest.done.usage.completion_tokens == 8


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("kind", KINDS)
def test_a_preempted_one_comes_back_with_its_images(make_seeing: MakeLlama, kind: str) -> None:
    engine = make_seeing(kind, slots=3, context_size=256)
    run = EngineRun(engine)
    jobs = [ask(str(n), picture(n), str(n), max_tokens=60) for n in range(3)]
    outcomes = run.finish(*jobs)
    assert sum(outcome.num_preempted for outcome in outcomes) > 0
    assert [len(outcome.ids) for outcome in outcomes] == [60] * 3
    check_books(engine)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_broken_image_is_a_mistake_of_its_client(make_seeing: MakeLlama, kind: str) -> None:
    whole = picture(1, size=(300, 300), kind=kind)
    run = EngineRun(make_seeing())
    broken, fine = run.finish(ask("a", "See", picture(), whole[: len(whole) // 2]), ask("b", "See", whole))
    rejected = broken.rejected
    assert (rejected.code, rejected.status) == ("image_decoding_failed", 400)
    assert rejected.param == "messages[0].content[2]"
    assert fine.ids
    assert run.engine.num_free_slots == 4


def test_an_agent_without_a_projection_refuses_images(make_llama: MakeLlama) -> None:
    [outcome] = EngineRun(make_llama()).finish(ask("a", "See", picture()))
    rejected = outcome.rejected
    assert (rejected.code, rejected.status) == ("multimodal_not_supported", 400)
    assert rejected.param == "messages[0].content[1]"
    assert "--multimodal-projection" in rejected.message


def test_a_prompt_too_long_for_its_images_is_refused(make_seeing: MakeLlama) -> None:
    [outcome] = EngineRun(make_seeing(context_size=256)).finish(ask("a", *[picture(n) for n in range(4)]))
    assert outcome.rejected.code == "context_length_exceeded"
    assert outcome.rejected.param == "messages"


def test_an_encoder_that_fails_ends_that_request_alone(make_seeing: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_seeing()
    projector = engine._vision._projector
    assert projector is not None

    def fail(*_: object) -> int:
        return 1

    monkeypatch.setattr(mtmd, "mtmd_encode_chunk", fail)
    run = EngineRun(engine)
    seeing, other = run.finish(ask("a", "See", picture()), make_job("b", STORY))
    assert (seeing.rejected.code, seeing.rejected.status) == ("engine_failed", 500)
    assert other.ids
    check_books(engine)


@pytest.mark.parametrize("num_steps", range(4))
def test_a_cancel_at_any_time_frees_the_slot(make_seeing: MakeLlama, num_steps: int) -> None:
    engine = make_seeing(slots=1)
    run = EngineRun(engine)
    outcome = run.start(ask("a", "See", picture(1), "and", picture(2)))
    for _ in range(num_steps):
        run.step()
    engine.cancel("a")
    run.step_until(lambda: outcome.end is not None)
    assert engine.num_free_slots == 1
    [again] = run.finish(ask("b", "See", picture(1), "and", picture(2)))
    assert again.ids
    check_books(engine)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_step_leaves_the_books_true(make_seeing: MakeLlama, kind: str) -> None:
    engine = make_seeing(kind, slots=2)
    run = EngineRun(engine)
    outcome = run.start(ask("a", "See", picture(1), "there", picture(2)))
    for _ in range(4):
        engine.interrupt()
        run.step()
        check_books(engine)
    run.finish()
    assert outcome.ids
    check_books(engine)


def test_dry_looks_past_images(make_seeing: MakeLlama) -> None:
    """Their ids are no tokens, which a penalty could name."""
    sampling = Sampling(temperature=0, dry_multiplier=1.0, dry_allowed_length=0)
    [outcome] = EngineRun(make_seeing(slots=1)).finish(ask("a", picture(1), picture(1), "x", sampling=sampling))
    assert outcome.ids


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("kind", KINDS)
def test_the_books_are_true_whatever_comes(make_seeing: MakeLlama, kind: str) -> None:
    chance = random.Random(3)
    engine = make_seeing(kind, slots=3, context_size=300, max_parked=4)
    run = EngineRun(engine)
    for n in range(14):
        content = [
            picture(chance.randrange(2)) if chance.random() < 0.5 else "so" for _ in range(chance.randrange(1, 4))
        ]
        job = ask(str(n), *content, max_tokens=chance.randrange(1, 9), scope=chance.choice(("", "", "ann")))
        run.step_until(lambda: engine.num_free_slots > 0)
        run.start(job)
        if chance.random() < 0.2:
            engine.cancel(str(chance.randrange(n + 1)))
        run.step()
        check_books(engine)
    run.finish()
    check_books(engine)
    assert not engine._sequences
    assert len(engine._kv._free) + engine._kv.num_parked == 7


def test_an_engine_tells_whether_it_sees(make_llama: MakeLlama, make_seeing: MakeLlama) -> None:
    assert "see" in make_seeing().info.abilities
    assert "see" not in make_llama().info.abilities
