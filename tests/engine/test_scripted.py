"""What only the scripted engine does: directives, pacing, and its predictable words."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from msgspec.structs import replace

from paddler.testing.engine_run import EngineRun, is_stop, make_job
from paddler.testing.scripted import ScriptedEngine
from paddler.wire.agent import Sampling


def text_of(prompt: str, **fields: float) -> str:
    sampling = Sampling(**fields)  # pyright: ignore[reportArgumentType]  # by name
    return EngineRun(ScriptedEngine()).finish(make_job("a", prompt, max_tokens=6, sampling=sampling))[0].text


def test_words_depend_on_prompt_and_seed() -> None:
    assert text_of("hello", seed=1) == text_of("hello", seed=1)
    assert len({text_of("hello", seed=1), text_of("hello", seed=2), text_of("hallo", seed=1)}) == 3
    assert text_of("hello", seed=1, temperature=0.0) == text_of("hello", seed=2, temperature=0.0)
    assert all(word.startswith("w") and word[1:].isdigit() for word in text_of("hello").split())


def test_tokens_sets_the_length_and_ends_with_stop() -> None:
    [outcome] = EngineRun(ScriptedEngine()).finish(make_job("a", "go [[tokens=5]]", max_tokens=None))
    assert is_stop(outcome)
    assert outcome.done.usage.completion_tokens == len(outcome.ids) == len(outcome.text.split()) == 5
    assert outcome.done.usage.prompt_tokens == 2


def test_without_a_directive_the_default_length() -> None:
    [outcome] = EngineRun(ScriptedEngine(default_tokens=3)).finish(make_job("a", "go", max_tokens=None))
    assert (is_stop(outcome), len(outcome.ids)) == (True, 3)


def test_say() -> None:
    [outcome] = EngineRun(ScriptedEngine()).finish(make_job("a", "[[say=Grüße, 🙂!]]", max_tokens=None))
    assert (outcome.text, is_stop(outcome)) == ("Grüße, 🙂!", True)
    assert len(outcome.ids) == len("Grüße, 🙂!".encode())


def test_fail() -> None:
    [outcome] = EngineRun(ScriptedEngine()).finish(make_job("a", "please [[fail]]"))
    assert (outcome.rejected.code, outcome.rejected.status) == ("engine_failed", 500)


DYING = """
import sys
from paddler.testing.engine_run import EngineRun, make_job
from paddler.testing.scripted import ScriptedEngine
run = EngineRun(ScriptedEngine(is_deadly=True))
outcome = run.start(make_job("a", sys.argv[1]))
while outcome.end is None:
    run.step()
    print(len(outcome.ids), flush=True)
"""


@pytest.mark.parametrize(("prompt", "num_tokens"), [("[[die]]", 0), ("[[die=3]]", 3)])
def test_die_kills_the_process(prompt: str, num_tokens: int) -> None:
    ran = subprocess.run([sys.executable, "-c", DYING, prompt], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL
    assert ran.stdout.split() == [str(n) for n in range(1, num_tokens + 1)]


def test_die_with_a_number_spares_the_one_who_continues() -> None:
    [whole] = EngineRun(ScriptedEngine()).finish(make_job("a", "[[die=3]]", max_tokens=8))
    job = make_job("a", "[[die=3]]", max_tokens=8, resume=whole, resume_at=3)
    deadly = ScriptedEngine(is_deadly=False)
    [rest] = EngineRun(deadly).finish(job)
    assert whole.ids[3:] == rest.ids


def test_every_step_takes_its_time_and_an_idle_one_none() -> None:
    paused: list[float] = []
    run = EngineRun(ScriptedEngine(step_s=0.02, pause=paused.append))
    run.step()
    assert paused == []
    run.finish(make_job("a", "go", max_tokens=4), make_job("b", "go", max_tokens=4))
    assert paused == [0.02] * 4, "for all jobs together"


def test_prefill_takes_steps() -> None:
    run = EngineRun(ScriptedEngine(prefill_per_step=10))
    [outcome] = run.finish(make_job("a", "word " * 35, max_tokens=2))
    assert outcome.steps == [4, 5]


def test_closing_ends_a_pause() -> None:
    engine = ScriptedEngine(step_s=30)
    engine.start(make_job("a", "go"))
    thread = threading.Thread(target=engine.step)
    thread.start()
    engine.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_what_another_vocabulary_has_said_counts_as_it_was_sampled() -> None:
    """Its text may be more or fewer tokens of ours; clients and limits count the others."""
    [whole] = EngineRun(ScriptedEngine()).finish(make_job("a", "go", max_tokens=8))
    said = "".join(whole.pieces[:3])
    job = replace(make_job("b", "go", max_tokens=8), resume_text=said, num_foreign=6)
    [rest] = EngineRun(ScriptedEngine()).finish(job)
    assert said + rest.text == "".join(whole.pieces[:5]), "it goes on where the text ends"
    assert (rest.done.reason, rest.done.usage.completion_tokens) == (whole.done.reason, 8)
    assert len(rest.ids) == 2
