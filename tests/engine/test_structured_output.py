"""The real model held to a grammar: whatever it says is valid, and goes on exactly at another agent."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from datetime import datetime, time
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from random_schemas import random_schema

from paddler.engine import Job
from paddler.structure.json_schema import json_schema_to_gbnf
from paddler.testing.engine_run import EngineRun, Outcome
from paddler.wire.agent import Generate, Message, Sampling
from paddler.wire.balancer import FinishReason
from workers.agent.llama_engine import LlamaEngine

MakeLlama = Callable[..., LlamaEngine]

NUM_SCHEMAS = 200 if os.environ.get("PADDLER_TEST_SIZE") == "full" else 8
SEED = int(os.environ.get("PADDLER_TEST_SEED", "7"))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 30, "maxLength": 60},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["red", "ready", "green"]}, "minItems": 2, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
}
FORMATS = FormatChecker(["date", "uuid", "ipv4", "email"])


@FORMATS.checks("time", ValueError)
def is_time(text: object) -> bool:
    return bool(str(time.fromisoformat(str(text))))


@FORMATS.checks("date-time", ValueError)
def is_date_time(text: object) -> bool:
    return bool(str(datetime.fromisoformat(str(text))))


def job(request_id: str, gbnf: str, text: str = "Describe a person as JSON.", **fields: Any) -> Job:
    sampling = fields.pop("sampling", Sampling(temperature=0.8, seed=3))
    payload = Generate(messages=(Message("user", text),), grammar=gbnf, sampling=sampling, **fields)
    return Job(request_id=request_id, payload=payload)


def schemas() -> list[dict[str, Any]]:
    rng = random.Random(SEED)
    found: list[dict[str, Any]] = []
    for _ in range(NUM_SCHEMAS):
        schema = random_schema(rng)
        found.append({**schema, "$defs": {"inner": random_schema(rng, 2)}})
    return found


@pytest.mark.timeout(60 + 15 * NUM_SCHEMAS)
def test_random_schemas_are_satisfied(make_llama: MakeLlama) -> None:
    run = EngineRun(make_llama(slots=4, context_size=8192))
    made = schemas()
    jobs = [
        job(str(number), json_schema_to_gbnf(schema), f"JSON number {number}, please: {json.dumps(schema)[:300]}",
            sampling=Sampling(temperature=(0.0, 0.8, 1.5)[number % 3], seed=number))
        for number, schema in enumerate(made)
    ]  # fmt: skip
    outcomes = run.finish(*jobs)
    for schema, outcome in zip(made, outcomes, strict=True):
        assert outcome.done.reason is FinishReason.STOP, (schema, outcome.text)
        Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(outcome.text))


def resumed(whole: Outcome, first: Job, at: int) -> Job:
    text = "".join(whole.pieces[:at])
    return Job(request_id="again", payload=first.payload, resume_ids=tuple(whole.ids[:at]), resume_text=text)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_request_goes_on_exactly_within_a_string_a_number_and_between(
    make_llama: MakeLlama, temperature: float
) -> None:
    """Token by token, so that the numerics are the same (see `make_llama`)."""
    sampling = Sampling(temperature=temperature, seed=11)
    first = job("first", json_schema_to_gbnf(PERSON), sampling=sampling, max_tokens=200)
    [whole] = EngineRun(make_llama(slots=1, n_batch=1)).finish(first)
    assert json.loads(whole.text)["age"] >= 18
    assert whole.done.reason is FinishReason.STOP
    engine = make_llama(slots=1, n_batch=1, max_parked=0)
    inside = {len(whole.ids) * part // 5 for part in range(1, 5)}
    cuts = sorted({1, *inside, len(whole.ids) - 1})
    for at in cuts:
        [rest] = EngineRun(engine).finish(resumed(whole, first, at))
        assert [*whole.ids[:at], *rest.ids] == whole.ids, f"cut at {at}"
        assert "".join(whole.pieces[:at]) + rest.text == whole.text
        assert rest.done.usage.completion_tokens == len(whole.ids)
