"""The contract of `paddler.engine`, asked of every engine alike. No exact text of a model is ever expected:
it differs between builds; runs are compared with runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from tiny_vision import picture

from paddler.engine import Done, Engine, Event, Job, NoFreeSlot, Progress, Retained, Working
from paddler.testing.engine_run import EngineRun, Outcome, is_stop, make_job
from paddler.testing.scripted import ScriptedEngine
from paddler.wire.agent import Generate, ImagePart, Message, Sampling, TextPart
from paddler.wire.balancer import UNKNOWN_TOKEN, FinishReason, Usage

MakeEngine = Callable[..., Engine]
STORY = "Once upon a time there was a small red fox who lived"
LONG = "one two three four five six seven eight nine ten " * 30
RANDOM = Sampling(temperature=1.0, seed=7)  # with the penalties that are on by default


@pytest.fixture
def run(make_engine: MakeEngine) -> EngineRun:
    return EngineRun(make_engine())


def test_an_idle_engine_returns_at_once(run: EngineRun) -> None:
    assert run.engine.step() == []
    assert run.engine.num_free_slots == run.engine.info.slots_total == 4


def test_text_streams_token_by_token(run: EngineRun) -> None:
    [outcome] = run.finish(make_job("a", STORY, max_tokens=12))
    assert len(outcome.ids) == len(outcome.steps) == 12
    assert len(set(outcome.steps)) == 12, "one token a step"
    assert outcome.done.reason is FinishReason.LENGTH
    assert outcome.text
    assert outcome.done.usage.completion_tokens == 12
    assert outcome.done.usage.prompt_tokens > 5
    assert outcome.done.usage.cached_tokens == 0
    assert run.engine.num_free_slots == 4


def test_slots_generate_in_parallel(run: EngineRun) -> None:
    outcomes = run.finish(*(make_job(str(n), f"{STORY} with {n} friends", max_tokens=30) for n in range(4)))
    assert all(len(outcome.ids) == 30 or is_stop(outcome) for outcome in outcomes)
    together = range(max(outcome.steps[0] for outcome in outcomes), min(outcome.steps[-1] for outcome in outcomes) + 1)
    assert len(together) > 3
    assert all(set(together) <= set(outcome.steps) for outcome in outcomes), "a token for each in every step"


def test_more_jobs_than_slots_all_end(run: EngineRun) -> None:
    outcomes = run.finish(*(make_job(str(n), f"{STORY} {n}", max_tokens=4) for n in range(10)))
    assert [len(outcome.ids) for outcome in outcomes] == [4] * 10


def test_starting_without_a_free_slot_is_a_bug_of_the_caller(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=1)
    engine.start(make_job("a", STORY))
    assert engine.num_free_slots == 0
    with pytest.raises(NoFreeSlot):
        engine.start(make_job("b", STORY))


def test_a_long_prompt_does_not_stall_the_others(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(n_batch=32))
    running = run.start(make_job("running", STORY, max_tokens=200))
    run.step_until(lambda: len(running.ids) == 3)
    long = run.start(make_job("long", LONG, max_tokens=3))
    begin = run.num_steps
    run.step_until(lambda: bool(long.ids))
    assert run.num_steps - begin > 8, "the prompt takes many steps"
    assert running.steps[3:] == list(range(begin + 1, run.num_steps + 1)), "each gave the other its token"


def test_a_short_prompt_does_not_wait_for_a_long_one(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(n_batch=32))
    long = run.start(make_job("long", LONG, max_tokens=3))
    run.step()
    short = run.start(make_job("short", STORY, max_tokens=3))
    run.step_until(lambda: short.end is not None)
    assert not long.ids


def test_cancel_during_prefill_frees_the_slot_by_the_next_step(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=1, n_batch=32))
    outcome = run.start(make_job("a", LONG))
    run.step()
    assert not outcome.ids
    run.engine.cancel("a")
    run.step()
    assert outcome.done.reason is FinishReason.CANCELLED
    assert run.engine.num_free_slots == 1
    assert run.finish(make_job("b", STORY, max_tokens=3))[0].done.reason is FinishReason.LENGTH


def test_cancel_during_decode_frees_the_slot_by_the_next_step(run: EngineRun) -> None:
    outcome = run.start(make_job("a", STORY, max_tokens=None))
    other = run.start(make_job("b", STORY, max_tokens=20))
    run.step_until(lambda: len(outcome.ids) == 5)
    run.engine.cancel("a")
    run.step()
    assert outcome.done.reason is FinishReason.CANCELLED
    assert outcome.done.usage.completion_tokens == len(outcome.ids) == 5
    assert run.engine.num_free_slots == 3
    run.finish()
    assert len(other.ids) == 20


def test_cancel_before_the_first_step(run: EngineRun) -> None:
    outcome = run.start(make_job("a", STORY))
    run.engine.cancel("a")
    run.step()
    assert outcome.done == replace(outcome.done, reason=FinishReason.CANCELLED, usage=Usage(), text="")
    assert run.engine.num_free_slots == 4


def test_cancelling_an_unknown_id_does_nothing_now_or_later(run: EngineRun) -> None:
    run.engine.cancel("a")
    assert len(run.finish(make_job("a", STORY, max_tokens=3))[0].ids) == 3


def test_a_request_cancelled_and_started_again_in_one_round_is_another_job(run: EngineRun) -> None:
    first = run.start(make_job("a", STORY))
    run.step()
    run.engine.cancel("a")
    run.engine.start(make_job("a", STORY, max_tokens=4))
    events = run.engine.step()
    assert [type(event) for event in events if not isinstance(event, Retained)] == [Done, Progress]
    assert first.end is None


def free_text(make_engine: MakeEngine, prompt: str, max_tokens: int) -> Outcome:
    return EngineRun(make_engine(slots=1)).finish(make_job("free", prompt, max_tokens=max_tokens))[0]


def test_a_stop_string_ends_the_text_before_itself(make_engine: MakeEngine) -> None:
    free = free_text(make_engine, STORY, 30)
    # From within one token to within another one.
    begin = len("".join(free.pieces[:9])) + 1
    stop = free.text[begin : len("".join(free.pieces[:12])) - 1]
    assert len(stop) > 2
    [outcome] = EngineRun(make_engine(slots=1)).finish(make_job("a", STORY, max_tokens=30, stop=(stop, "never")))
    assert is_stop(outcome)
    assert outcome.done.stop == stop
    assert outcome.text == free.text[: free.text.index(stop)]
    assert outcome.ids == free.ids[: len(outcome.ids)]
    assert outcome.done.usage.completion_tokens == len(outcome.ids) < 30
    assert all(stop not in "".join(outcome.pieces[:n]) for n in range(len(outcome.pieces)))


def test_text_held_back_for_a_stop_string_is_flushed_at_the_end(make_engine: MakeEngine) -> None:
    free = free_text(make_engine, STORY, 8)
    stop = f"{free.pieces[6]}{free.pieces[7]}never"
    [outcome] = EngineRun(make_engine(slots=1)).finish(make_job("a", STORY, max_tokens=8, stop=(stop,)))
    assert outcome.done.reason is FinishReason.LENGTH
    assert outcome.done.text
    assert outcome.text == free.text


def test_text_held_back_is_not_released_by_a_cancel(make_engine: MakeEngine) -> None:
    """Half a character, too, would be text that the uninterrupted run has not."""
    beginning = "".join(free_text(make_engine, STORY, 12).pieces[:3])
    run = EngineRun(make_engine(slots=1))
    outcome = run.start(make_job("a", STORY, max_tokens=None, stop=(f"{beginning} and never that",)))
    run.step_until(lambda: len(outcome.ids) == 1)
    assert outcome.text == ""
    run.engine.cancel("a")
    run.step()
    assert (outcome.done.reason, outcome.text) == (FinishReason.CANCELLED, "")


def test_characters_are_never_cut(make_talker: MakeEngine) -> None:
    """The scripted engine says one byte a token; the model's emoji are several tokens too."""
    run = EngineRun(make_talker())
    prompt = "[[say=🙂🙂🙂🙂🙂🙂]] 🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂"
    [outcome] = run.finish(make_job("a", prompt, max_tokens=24))
    assert max(outcome.text) > "\uffff", "an emoji"
    assert "" in outcome.pieces[:-1], "some token did not complete a character"
    assert "\ufffd" not in "".join(outcome.pieces[:-1])


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_max_tokens_is_exact(run: EngineRun, max_tokens: int) -> None:
    [outcome] = run.finish(make_job("a", STORY, max_tokens=max_tokens))
    assert outcome.done.reason is FinishReason.LENGTH
    assert outcome.done.usage.completion_tokens == len(outcome.ids) == max_tokens
    assert outcome.done.usage.prompt_tokens > 0


def test_without_max_tokens_the_context_is_the_bound(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=1, context_size=256)
    [outcome] = EngineRun(engine).finish(make_job("a", "one two three " * 73, max_tokens=None))
    usage = outcome.done.usage
    assert outcome.done.reason is FinishReason.LENGTH
    assert usage.prompt_tokens + usage.completion_tokens == engine.info.context_size


def test_a_prompt_longer_than_the_context_is_rejected_with_both_numbers(run: EngineRun) -> None:
    [outcome] = run.finish(make_job("a", LONG * 6))
    rejected = outcome.rejected
    assert (rejected.code, rejected.status, rejected.param) == ("context_length_exceeded", 400, "prompt")
    assert "1024" in rejected.message
    assert any(1500 < int(word) < 2500 for word in rejected.message.split() if word.isdigit())
    assert run.engine.num_free_slots == 4


MESSAGES = (Message("user", "Name a colour."),)
WRONG: dict[str, Generate] = {
    "messages": Generate(messages=(), prompt=None),
    "max_tokens": Generate(prompt=STORY, max_tokens=-1),
    "stop": Generate(prompt=STORY, stop=("",)),
    "temperature": Generate(prompt=STORY, sampling=Sampling(temperature=float("nan"))),
    "top_p": Generate(prompt=STORY, sampling=Sampling(top_p=float("inf"))),
    "penalty_repeat": Generate(prompt=STORY, sampling=Sampling(penalty_repeat=0.0)),
    "prompt": Generate(prompt=""),
    "grammar": Generate(prompt=STORY, grammar="root ::= root"),
}


@pytest.mark.parametrize("param", WRONG)
def test_a_wrong_field_is_rejected_by_name_and_hurts_nobody(run: EngineRun, param: str) -> None:
    good, bad = run.finish(make_job("good", STORY, max_tokens=3), Job(request_id="bad", payload=WRONG[param]))
    assert (bad.rejected.code, bad.rejected.status, bad.rejected.param) == ("invalid_field", 400, param)
    assert len(good.ids) == 3


def test_a_grammar_is_followed_or_refused_by_name(run: EngineRun) -> None:
    good, held = run.finish(
        make_job("good", STORY, max_tokens=3),
        Job(request_id="held", payload=Generate(prompt=STORY, grammar='root ::= ("yes" | "no")')),
    )
    assert len(good.ids) == 3
    if isinstance(held.end, Done):
        assert is_stop(held)
        assert held.text in ("yes", "no")
    else:
        assert (held.rejected.code, held.rejected.status, held.rejected.param) == ("invalid_field", 400, "grammar")


def test_prompt_and_messages_together_are_rejected(run: EngineRun) -> None:
    [outcome] = run.finish(Job(request_id="a", payload=Generate(prompt=STORY, messages=MESSAGES)))
    assert outcome.rejected.code == "invalid_field"


def test_messages_are_a_prompt(run: EngineRun) -> None:
    payload = Generate(messages=MESSAGES, max_tokens=5, sampling=Sampling(temperature=0))
    [outcome] = run.finish(Job(request_id="a", payload=payload))
    assert len(outcome.ids) == 5 or is_stop(outcome)
    assert outcome.done.usage.prompt_tokens >= 3


def test_the_same_seed_gives_the_same_output_and_another_seed_another(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=1))
    seeds = {"a": 1, "b": 1, "c": 2}
    a, b, c = run.finish(*(make_job(key, STORY, sampling=replace(RANDOM, seed=seed)) for key, seed in seeds.items()))
    assert a.ids == b.ids
    assert a.ids != c.ids


@pytest.mark.parametrize("sampling", [None, RANDOM], ids=["greedy", "random"])
@pytest.mark.parametrize("at", [1, 7, 19])
def test_a_request_continued_elsewhere_is_the_uninterrupted_one(
    make_engine: MakeEngine, sampling: Sampling | None, at: int
) -> None:
    """Token by token, so that a prefill of the sent tokens has the numerics of their decode (see `make_llama`)."""
    make: Callable[[], EngineRun] = lambda: EngineRun(make_engine(slots=1, n_batch=1))  # noqa: E731  # two agents
    [whole] = make().finish(make_job("a", STORY, max_tokens=20, sampling=sampling, stop=("xyz",)))
    job = make_job("a", STORY, max_tokens=20, sampling=sampling, stop=("xyz",), resume=whole, resume_at=at)
    [rest] = make().finish(job)
    assert whole.ids == [*job.resume_ids, *rest.ids]
    assert whole.text == whole.text[: job.resume_text_length] + rest.text
    assert rest.done == replace(whole.done, text=rest.done.text)


def test_a_continuation_in_usual_batches_repeats_nothing_and_counts_everything(run: EngineRun) -> None:
    whole = run.finish(make_job("a", STORY, max_tokens=20))[0]
    job = make_job("b", STORY, max_tokens=20, resume=whole, resume_at=8)
    [rest] = run.finish(job)
    assert len(rest.ids) == 12 or is_stop(rest)
    assert rest.done.usage.completion_tokens == 8 + len(rest.ids)
    assert rest.done.usage.prompt_tokens == whole.done.usage.prompt_tokens


def test_a_continuation_that_lacks_only_the_end_computes_nothing(run: EngineRun) -> None:
    [whole] = run.finish(make_job("a", STORY, max_tokens=6))
    outcome = run.start(make_job("b", STORY, max_tokens=6, resume=whole, resume_at=6))
    run.step()
    assert outcome.done == replace(whole.done, request_id="b", text=outcome.done.text)
    assert outcome.ids == []


def test_a_continuation_gets_the_text_its_client_lacks(run: EngineRun) -> None:
    [whole] = run.finish(make_job("a", STORY, max_tokens=10))
    job = replace(make_job("b", STORY, max_tokens=10, resume=whole, resume_at=10), resume_text=whole.text[:4])
    [rest] = run.finish(job)
    assert whole.text[4:] == rest.text


def told_again(job: Job, text: str, num_tokens: int) -> Job:
    """Begun by an engine of another vocabulary, which took so many tokens for the text."""
    return replace(job, resume_text=text, num_foreign=num_tokens)


@pytest.mark.parametrize("at", [1, 7, 19])
def test_what_another_vocabulary_has_said_is_gone_on_from(make_engine: MakeEngine, at: int) -> None:
    """From its text alone, token by token as above: the tokens are the same here, as the vocabulary is."""
    make: Callable[[], EngineRun] = lambda: EngineRun(make_engine(slots=1, n_batch=1))  # noqa: E731  # two agents
    [whole] = make().finish(make_job("a", STORY, max_tokens=20, stop=("xyz",)))
    said = "".join(whole.pieces[:at])
    [rest] = make().finish(told_again(make_job("a", STORY, max_tokens=20, stop=("xyz",)), said, at))
    assert whole.text == said + rest.text
    assert len(rest.ids) == 20 - at
    assert rest.done.usage == whole.done.usage


def test_those_tokens_count_as_the_client_counted_them(run: EngineRun) -> None:
    """As many as were sampled, not as many as this vocabulary takes: the client has asked for 9, and has had 7."""
    if isinstance(run.engine, ScriptedEngine):
        pytest.skip("its words are those of every scripted engine")
    [rest] = run.finish(told_again(make_job("a", STORY, max_tokens=9), "One", 7))
    assert len(rest.ids) == 2 or is_stop(rest)
    assert rest.done.usage.completion_tokens == 7 + len(rest.ids)


@pytest.mark.parametrize("token", [10**9, UNKNOWN_TOKEN])
def test_tokens_of_another_model_are_refused(run: EngineRun, token: int) -> None:
    [outcome] = run.finish(replace(make_job("a", STORY), resume_ids=(token,)))
    assert (outcome.rejected.code, outcome.rejected.status) == ("engine_failed", 500)


def test_with_too_small_a_cache_every_job_still_ends(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=4, context_size=256)
    outcomes = EngineRun(engine).finish(*(make_job(str(n), f"{STORY} {n} " * 4, max_tokens=30) for n in range(5)))
    for outcome in outcomes:
        assert len(outcome.ids) == outcome.done.usage.completion_tokens
        assert len(outcome.ids) == 30 or is_stop(outcome)


def scoped(job: Job, scope: str) -> Job:
    return replace(job, payload=replace(job.payload, cache_scope=scope))


def told(run: EngineRun, request_id: str) -> list[tuple[int, int, int | None]]:
    return [(one.num_tokens, one.num_total, one.num_cached) for one in run.retained[request_id]]


def test_a_prompt_that_was_computed_is_not_computed_again(run: EngineRun) -> None:
    first, again = run.finish(make_job("a", LONG, max_tokens=3))[0], run.finish(make_job("b", LONG, max_tokens=3))[0]
    assert first.done.usage.cached_tokens == 0
    assert again.done.usage.cached_tokens == again.done.usage.prompt_tokens - 1, "one is computed in any case"


def test_what_is_held_is_told_when_prefilled_and_after_the_end(run: EngineRun) -> None:
    """And nothing after the end that was not told before, or who listens would keep it for ever."""
    job = make_job("a", LONG, max_tokens=3)
    run.start(job)
    events: list[Event] = []
    while run.engine.num_free_slots < 4:
        events += run.step()
    num_prompt = run.outcomes["a"].done.usage.prompt_tokens
    kinds = [type(event) for event in events if not isinstance(event, Working)]  # which a busy machine brings about
    assert kinds == [Retained, Progress, Progress, Progress, Done, Retained]
    prefilled, parked = told(run, "a")
    assert prefilled == (num_prompt, num_prompt, 0)
    assert parked[0] == parked[1] >= num_prompt + 2
    assert parked[2] is None
    run.finish(make_job("b", LONG + "and more", max_tokens=3))
    assert told(run, "b")[0][2] == run.outcomes["b"].done.usage.cached_tokens > 0


def test_a_job_that_leaves_nothing_says_so_or_never_said_anything(make_engine: MakeEngine) -> None:
    run = EngineRun(make_engine(slots=2, n_batch=32))
    run.start(make_job("early", LONG))
    run.engine.cancel("early")
    run.start(make_job("prefilling", LONG + "x"))
    run.step()
    run.engine.cancel("prefilling")
    run.step()
    assert all(num_cached is None for name in run.retained for _, _, num_cached in told(run, name))


def test_scopes_share_nothing(run: EngineRun) -> None:
    """One after the other, and while the other runs."""
    ann, bob, nobody = (scoped(make_job(name, LONG, max_tokens=8), name) for name in ("ann", "bob", ""))
    run.finish(ann)
    run.start(bob)
    run.step_until(lambda: len(run.outcomes["bob"].ids) == 2)
    run.finish(nobody)
    assert [outcome.done.usage.cached_tokens for outcome in run.outcomes.values()] == [0, 0, 0]
    [again] = run.finish(replace(ann, request_id="ann again"))
    assert again.done.usage.cached_tokens == again.done.usage.prompt_tokens - 1


def test_what_makes_room_is_told_of_long_after_its_end(make_engine: MakeEngine) -> None:
    run, prompt = EngineRun(make_engine(slots=2, context_size=512)), LONG[: len(LONG) // 2]
    for name in "abcdef":
        run.finish(make_job(name, f"{name} {prompt}", max_tokens=3))
    gone = [name for name in "abcdef" if told(run, name)[-1][0] == 0]
    assert gone == list("abcdef")[: len(gone)], "the least recently used first"
    assert 0 < len(gone) < 6
    kept = run.finish(make_job("kept", f"f {prompt}", max_tokens=3))[0].done.usage
    lost = run.finish(make_job("lost", f"a {prompt}", max_tokens=3))[0].done.usage
    assert kept.cached_tokens == kept.prompt_tokens - 1
    assert lost.cached_tokens == 0


def test_a_preempted_job_that_comes_back_finds_what_it_had(make_engine: MakeEngine) -> None:
    """The scripted engine is told to; the other one has too few cells for all four."""
    run = EngineRun(make_engine(slots=4, context_size=256))
    jobs = [make_job(str(n), "[[preempt=3]] " + f"{STORY} {n} " * 4, max_tokens=30) for n in range(4)]
    outcomes = run.finish(*jobs)
    assert outcomes[3].num_preempted > 0
    for outcome in outcomes:
        assert len(outcome.ids) == outcome.done.usage.completion_tokens
        assert len(outcome.ids) == 30 or is_stop(outcome)


def test_progress_names_its_request(run: EngineRun) -> None:
    jobs = {request_id: run.start(make_job(request_id, STORY, max_tokens=None)) for request_id in ("a", "b")}
    run.step_until(lambda: all(outcome.ids for outcome in jobs.values()))
    assert [event.request_id for event in run.step() if isinstance(event, Progress)] == ["a", "b"]


def test_close_is_final_and_may_be_repeated(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.start(make_job("a", STORY))
    engine.step()
    engine.close()
    engine.close()


def test_an_engine_that_sees_nothing_refuses_images_by_name(run: EngineRun) -> None:
    message = Message("user", "see", parts=(TextPart("see"), ImagePart(picture())))
    payload = Generate(messages=(Message("system", "x"), message))
    refused, other = run.finish(Job(request_id="a", payload=payload), make_job("b", STORY, max_tokens=3))
    rejected = refused.rejected
    assert (rejected.code, rejected.status) == ("multimodal_not_supported", 400)
    assert rejected.param == "messages[1].content[1]"
    assert other.ids
