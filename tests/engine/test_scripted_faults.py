"""The scripted engine's prefix cache, and what a prompt can ask to go wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
from msgspec.structs import replace

from paddler.engine import Event, Job, Preempted, Progress, Retained
from paddler.testing.engine_run import EngineRun, embed_job, make_job
from paddler.testing.script import whole
from paddler.testing.scripted import ScriptedEngine
from paddler.wire.agent import Generate, Message

SYSTEM = Message("system", "be kind " * 50)


def chat(*contents: str, scope: str = "") -> Generate:
    """A conversation: user and assistant in turns behind one system prompt."""
    turns = [Message(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    return Generate(messages=(SYSTEM, *turns), max_tokens=8, cache_scope=scope)


def run_through(engine: ScriptedEngine, job: Job) -> list[Event]:
    engine.start(job)
    events: list[Event] = []
    while engine.num_free_slots < engine.info.slots_total:
        events += engine.step()
    return events


def answer_of(payload: Generate) -> str:
    return whole(payload).text


def test_whole_is_what_the_engine_says() -> None:
    job = make_job("a", "go [[tokens=9]]", max_tokens=None, stop=("never",))
    [outcome] = EngineRun(ScriptedEngine()).finish(job)
    assert isinstance(job.payload, Generate)
    told = whole(job.payload)
    assert (list(told.ids), told.text, told.reason) == (outcome.ids, outcome.text, outcome.done.reason)


def test_the_next_turn_finds_the_conversation_in_the_cache() -> None:
    run = EngineRun(ScriptedEngine(prefill_per_step=10))
    first = chat("hello")
    [begun] = run.finish(Job(request_id="1", payload=first))
    second = chat("hello", answer_of(first), "and then")
    [going_on] = run.finish(Job(request_id="2", payload=second))
    # Everything but the roles and words of the new turn; the old answer is there with its opening.
    assert going_on.done.usage.cached_tokens == begun.done.usage.prompt_tokens + 1 + 8
    assert going_on.steps[0] - begun.steps[-1] == 1, "three new words are one step of prefill, the whole would be 12"
    assert going_on.text == answer_of(second), "what is cached changes no text"


def test_another_scope_shares_nothing() -> None:
    run = EngineRun(ScriptedEngine())
    jobs = [Job(request_id=name, payload=chat("hello", scope=name)) for name in ("ann", "bob")]
    for job in jobs:
        run.finish(job)
    again = replace(jobs[0], request_id="ann again")
    [once_more] = run.finish(again)
    assert [run.outcomes[name].done.usage.cached_tokens for name in ("ann", "bob")] == [0, 0]
    assert once_more.done.usage.cached_tokens == once_more.done.usage.prompt_tokens - 1, "one token is computed always"


def test_what_is_held_is_told() -> None:
    engine = ScriptedEngine(cache_tokens=250)
    events = run_through(engine, Job(request_id="1", payload=chat("hello")))
    held = [event for event in events if isinstance(event, Retained)]
    num_prompt = 101 + 2
    assert held == [Retained("1", num_prompt, num_prompt, 0), Retained("1", num_prompt + 9, num_prompt + 9)]
    assert events[-1] == held[-1], "after the end, when the agent knows the whole text"


def test_the_least_recently_used_is_evicted() -> None:
    engine = ScriptedEngine(cache_tokens=250)
    for name in ("1", "2"):
        run_through(engine, Job(request_id=name, payload=chat(f"hello {name}")))
    run_through(engine, Job(request_id="3", payload=chat("hello 1")))
    events = run_through(engine, Job(request_id="4", payload=chat("hello 4", scope="other")))
    assert [event.request_id for event in events if isinstance(event, Retained) and event.num_tokens == 0] == ["2"]


def test_a_continuation_replaces_what_it_began_with() -> None:
    engine = ScriptedEngine()
    first = chat("hello")
    run_through(engine, Job(request_id="1", payload=first))
    events = run_through(engine, Job(request_id="2", payload=chat("hello", answer_of(first), "more")))
    assert [event for event in events if isinstance(event, Retained) and event.num_tokens == 0] == [
        Retained("1", 0, 101 + 2 + 9)
    ]


def test_preempted_once_and_then_continued() -> None:
    engine = ScriptedEngine()
    payload = Generate(prompt="go [[preempt=3]]", max_tokens=8)
    events = run_through(engine, Job(request_id="a", payload=payload))
    ids = tuple(token for event in events if isinstance(event, Progress) for token in event.ids)
    assert Preempted("a") in events
    assert ids == whole(payload).ids[:3]
    rest = EngineRun(engine).finish(Job(request_id="a", payload=payload, resume_ids=ids))[0]
    assert (*ids, *rest.ids) == whole(payload).ids
    assert rest.done.usage.cached_tokens > 0, "its sequence stayed parked"


def test_stall_hangs_one_step() -> None:
    paused: list[float] = []
    job = make_job("a", "go [[stall=7.5]]", max_tokens=4)
    run = EngineRun(ScriptedEngine(step_s=0.1, pause=paused.append))
    [outcome] = run.finish(job)
    assert paused == [0.1, 0.1, 7.5, 0.1, 0.1]
    EngineRun(ScriptedEngine(pause=paused.append)).finish(replace(job, resume_ids=tuple(outcome.ids[:1])))
    assert paused.count(7.5) == 1, "not where it goes on"


def test_stall_hangs_one_step_of_an_embedding_too() -> None:
    paused: list[float] = []
    run = EngineRun(ScriptedEngine(step_s=0.1, pause=paused.append))
    run.finish(embed_job("a", "one [[stall=7.5]]", "two", "three"))
    assert paused == [0.1, 0.1, 7.5, 0.1]
    run.finish(embed_job("b", "one [[stall=7.5]]", "two", "three", embedded=(2,)))
    assert paused.count(7.5) == 1, "not where it goes on"


CONTINUING = """
from paddler.testing.engine_run import EngineRun
from paddler.engine import Job
from paddler.testing.script import whole
from paddler.testing.scripted import ScriptedEngine
from paddler.wire.agent import Generate
payload = Generate(prompt={prompt!r}, max_tokens=8)
job = Job(request_id="a", payload=payload, resume_ids=whole(payload).ids[:3])
EngineRun(ScriptedEngine(is_deadly=True)).finish(job)
"""


@pytest.mark.parametrize("prompt", ["[[die=3]]", "[[die=5]]", "[[die]]"])
def test_who_continues_survives(prompt: str) -> None:
    subprocess.run([sys.executable, "-c", CONTINUING.format(prompt=prompt)], check=True)
