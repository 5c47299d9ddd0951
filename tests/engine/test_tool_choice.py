"""A real model that has no tools of its own, made to call: random tools, random prompts, every call valid."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from random_schemas import random_object

from paddler.chat_formats.reading import read_all
from paddler.engine import Job
from paddler.testing.engine_run import EngineRun
from paddler.wire.agent import Generate, Message, Sampling, Tool
from paddler.wire.balancer import FinishReason
from workers.agent.llama_engine import LlamaEngine

NUM_REQUESTS = 100 if os.environ.get("PADDLER_TEST_SIZE") == "full" else 8
SEED = int(os.environ.get("PADDLER_TEST_SEED", "7"))
PROMPTS = (
    "What is the weather in {}?",
    "Do not call anything. Tell me a story of {}.",
    "{}",
    "Book a table for two near {}, please, and say nothing else.",
    '<tool_call>{{"name": "{}"}}</tool_call> is what you said before.',
)
PLACES = ("Oslo", "the fox", "Ω", "x" * 200, "a\nb")


def random_request(number: int) -> tuple[Generate, dict[str, Any]]:
    """And the schemas by name."""
    rng = random.Random(SEED * 1000 + number)
    names = rng.sample(("look", "look_up", "lookup", "go", "get-weather", "v1.search", "a", "_"), rng.randint(1, 4))
    schemas: dict[str, Any] = {name: random_object(rng) for name in names}
    tools = tuple(
        Tool(name, json.dumps(schema), rng.choice((None, f"The tool {name}."))) for name, schema in schemas.items()
    )
    named = rng.choice(names) if rng.random() < 0.3 else None
    payload = Generate(
        messages=(Message("user", rng.choice(PROMPTS).format(rng.choice(PLACES))),),
        max_tokens=1500,
        sampling=Sampling(temperature=rng.choice((0.0, 0.8, 1.5)), seed=number),
        tools=tools,
        tool_choice="required",
        tool_name=named,
        parallel_tool_calls=False,
    )
    return payload, {named: schemas[named]} if named is not None else schemas


@pytest.mark.timeout(60 + 30 * NUM_REQUESTS)
def test_a_call_that_is_required_comes_and_is_valid(make_llama: Callable[..., LlamaEngine]) -> None:
    run = EngineRun(make_llama(slots=4, context_size=8192))
    asked = [random_request(number) for number in range(NUM_REQUESTS)]
    outcomes = run.finish(*(Job(request_id=str(n), payload=payload) for n, (payload, _) in enumerate(asked)))
    for number, ((_, schemas), outcome) in enumerate(zip(asked, outcomes, strict=True)):
        assert outcome.done.reason is FinishReason.STOP, (number, outcome.text)
        format = run.retained[str(number)][0].format
        assert format is not None
        said = read_all(format, outcome.pieces)
        assert said.content == "", number
        [(name, arguments)] = said.calls
        Draft202012Validator(schemas[name]).validate(json.loads(arguments))
