"""Every sampling field changes what the real model says, and whoever goes on with a request keeps to it.

`docs/sampling.md` names these tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddler.clock import SystemClock
from paddler.engine import Engine
from paddler.engine_settings import EngineSettings
from paddler.testing.engine_run import EngineRun, Outcome, make_job
from paddler.wire.agent import Sampling
from workers.agent.llama import Model
from workers.agent.llama_engine import LlamaEngine

STORY = "Once upon a time there was a small red fox who lived"
LOOP = "one two three four five, one two three four five, one two three four five, one two"
PLAIN: dict[str, Any] = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "penalty_last_n": 0, "penalty_repeat": 1.0,
    "penalty_presence": 0.0, "seed": 7,
}  # fmt: skip
GREEDY: dict[str, Any] = {**PLAIN, "temperature": 0.0}
DRY: dict[str, Any] = {**GREEDY, "dry_multiplier": 2.0, "dry_sequence_breakers": ()}
PENALTY: dict[str, Any] = {**GREEDY, "penalty_last_n": -1}

NUM = 16

FIELDS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "temperature": (STORY, PLAIN, 0.0),
    "top_k": (STORY, PLAIN, 1),
    "top_p": (STORY, PLAIN, 0.1),
    "min_p": (STORY, PLAIN, 0.9),
    "seed": (STORY, PLAIN, 8),
    "penalty_last_n": (LOOP, {**GREEDY, "penalty_repeat": 2.0}, -1),
    "penalty_repeat": (LOOP, PENALTY, 2.0),
    "penalty_frequency": (LOOP, PENALTY, 10.0),
    "penalty_presence": (LOOP, PENALTY, 5.0),
    "logit_bias": (STORY, GREEDY, ((" in", -100.0), (" a", 50.0))),
    "min_keep": (STORY, {**PLAIN, "top_p": 0.01}, 50),
    "typical_p": (STORY, PLAIN, 0.1),
    "top_n_sigma": (STORY, PLAIN, 0.5),
    "xtc_probability": (STORY, PLAIN, 1.0),
    "xtc_threshold": (STORY, {**PLAIN, "xtc_probability": 1.0}, 0.01),
    "dynatemp_range": (STORY, PLAIN, 0.9),
    "dynatemp_exponent": (STORY, {**PLAIN, "dynatemp_range": 0.9}, 5.0),
    "dry_multiplier": (LOOP, {**DRY, "dry_multiplier": 0.0}, 2.0),
    "dry_base": (LOOP, {**DRY, "dry_multiplier": 0.1, "dry_base": 1.0}, 8.0),
    "dry_allowed_length": (LOOP, DRY, 100),
    "dry_penalty_last_n": (LOOP, DRY, 4),
    "dry_sequence_breakers": (LOOP, DRY, (" two",)),
    "mirostat": (STORY, PLAIN, 2),
    "mirostat_tau": (STORY, {**PLAIN, "mirostat": 2}, 1.0),
    "mirostat_eta": (STORY, {**PLAIN, "mirostat": 2, "mirostat_tau": 2.0}, 0.9),
}

MakeEngine = Callable[..., Engine]

# One worker asks the model for all of them, as the first test's set-up.
pytestmark = [pytest.mark.xdist_group("sampling fields"), pytest.mark.timeout(240)]


def generate(make: MakeEngine, prompt: str, sampling: dict[str, Any], **more: Any) -> Outcome:
    job = make_job("a", prompt, max_tokens=NUM, sampling=Sampling(**sampling), **more)
    [outcome] = EngineRun(make(slots=1)).finish(job)
    return outcome


def test_every_field_is_here() -> None:
    assert {*FIELDS, "ignore_eos"} == {*Sampling.__struct_fields__}


@pytest.fixture(scope="session")
def model_path(whole_path: Path) -> Path:
    return whole_path


@pytest.fixture(scope="session")
def model(whole_model: Model) -> Model:
    return whole_model


@pytest.fixture(scope="module")
def said(model: Model, model_path: Path) -> Iterator[dict[str, list[int]]]:
    """The token ids with each field, and before it (`field=`); one after the other, so that only the field can
    change them."""
    settings = EngineSettings(model_path=str(model_path), slots=1, context_size=256, max_parked=0, threads=1)
    engine = LlamaEngine(model, settings, SystemClock())
    asked = {f"{field}=": (prompt, base) for field, (prompt, base, _) in FIELDS.items()}
    asked |= {field: (prompt, {**base, field: value}) for field, (prompt, base, value) in FIELDS.items()}
    asked |= {"plain": (STORY, PLAIN), "mirostat 1": (STORY, {**PLAIN, "mirostat": 1})}
    jobs = {
        name: make_job(name, prompt, max_tokens=NUM, sampling=Sampling(**sampling))
        for name, (prompt, sampling) in asked.items()
    }
    jobs["again"] = make_job("again", STORY, max_tokens=NUM, sampling=Sampling(**PLAIN), stop=("never said",))
    # Many fields have the same before them, which is asked once.
    different = {job.payload: job for job in jobs.values()}
    ids = dict(zip(different, (outcome.ids for outcome in EngineRun(engine).finish(*different.values())), strict=True))
    yield {name: ids[job.payload] for name, job in jobs.items()}
    engine.close()


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_changes_the_output(said: dict[str, list[int]], field: str) -> None:
    assert said[field] != said[f"{field}="]


def test_what_nothing_changed_is_the_same(said: dict[str, list[int]]) -> None:
    """What the test above rests on."""
    assert said["plain"] == said["temperature="] == said["mirostat="] == said["again"]
    assert said["mirostat 1"] not in (said["plain"], said["mirostat"])


def test_ignore_eos_goes_on_to_the_bound(make_engine: MakeEngine) -> None:
    prompt = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.[[tokens=3]]"
    ended = generate(make_engine, prompt, GREEDY)
    assert len(ended.ids) < NUM
    longer = generate(make_engine, prompt, {**GREEDY, "ignore_eos": True})
    assert len(longer.ids) == NUM
    assert longer.done.reason == "length"


def test_no_field_is_ignored_by_the_scripted_engine() -> None:
    """All of them are part of what its words are a function of."""
    from paddler.testing.scripted import ScriptedEngine

    def words(sampling: dict[str, Any]) -> list[int]:
        return generate(ScriptedEngine, STORY, sampling).ids

    for field, (_, base, value) in FIELDS.items():
        if field != "logit_bias":
            assert words(base) != words({**base, field: value}), field
    first = words(PLAIN)[0]
    banned = words({**PLAIN, "logit_bias": ((first, -100.0),)})
    assert first not in banned
    refused = make_job("a", STORY, sampling=Sampling(logit_bias=((" in", -100.0),)))
    [outcome] = EngineRun(ScriptedEngine()).finish(refused)
    assert (outcome.rejected.status, outcome.rejected.param) == (400, "logit_bias")


def test_the_same_seed_gives_the_same_text(make_engine: MakeEngine) -> None:
    sampling = {**PLAIN, "seed": 2**32 - 1}
    first, second = (generate(make_engine, STORY, sampling) for _ in range(2))
    assert first.ids == second.ids
    assert first.text == second.text
    assert first.ids != generate(make_engine, STORY, {**sampling, "seed": 0}).ids


COMBINED = {
    "dry": {**DRY, "dry_penalty_last_n": 64},
    "dry with breakers": {**PLAIN, "dry_multiplier": 1.0, "dry_penalty_last_n": -1},
    "mirostat 1": {**PLAIN, "mirostat": 1},
    "mirostat 2": {**PLAIN, "mirostat": 2, "penalty_last_n": -1, "penalty_presence": 1.0},
    "xtc": {**PLAIN, "xtc_probability": 0.5, "min_keep": 2},
    "typical": {**PLAIN, "typical_p": 0.5, "dynatemp_range": 0.5},
    "bias": {**PLAIN, "logit_bias": ((500, -100.0), (600, 3.0)), "ignore_eos": True, "top_n_sigma": 2.0},
}


@pytest.mark.parametrize("name", COMBINED)
def test_another_agent_goes_on_exactly(make_engine: MakeEngine, name: str) -> None:
    """Whatever state a sampler has is rebuilt from the tokens so far, or came with them."""
    whole = generate(make_engine, LOOP, COMBINED[name])
    assert len(whole.ids) == NUM
    rest = generate(make_engine, LOOP, COMBINED[name], resume=whole, resume_at=9)
    assert rest.ids == whole.ids[9:]
    assert rest.mus == whole.mus[9:]


def test_mirostat_without_its_state_would_go_on_in_another_way(make_engine: MakeEngine) -> None:
    """What the test above rests on."""
    whole = generate(make_engine, LOOP, COMBINED["mirostat 2"])
    whole.mus[9] = 0.1
    rest = generate(make_engine, LOOP, COMBINED["mirostat 2"], resume=whole, resume_at=10)
    assert rest.ids != whole.ids[10:]
