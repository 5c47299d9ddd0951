"""An answer in the form that a program needs: what does not fit cannot be said, whatever the model would rather say."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from npm_client import NpmClient, install
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from story_harness import CommandFleet, Heard, Queue, asking
from up_harness import Up

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Animal(BaseModel):
    name: str = Field(max_length=20)
    legs: int = Field(ge=0, le=8)
    size: Literal["small", "large"]


async def test_the_official_client_gets_its_own_type_back(client: AsyncOpenAI) -> None:
    """pydantic writes the schema, the balancer makes a grammar of it, and the agent draws only tokens that fit: even a
    model of 135 million parameters fills the form."""
    answer = await client.chat.completions.parse(
        model="default", messages=asking("Describe a spider."), response_format=Animal, max_tokens=200
    )
    animal = answer.choices[0].message.parsed
    assert animal is not None
    assert 0 <= animal.legs <= 8
    assert answer.choices[0].finish_reason == "stop"


async def test_the_client_of_npm_gets_its_own_type_back(up: Up) -> None:
    """There zod writes the schema, of a chat and of a response, and reads what comes; what does not fit throws."""
    npm = NpmClient(await asyncio.to_thread(install))
    for case, end in (("chatParse", {"reason": "stop"}), ("responsesParse", {"status": "completed"})):
        told = await npm.run(up.openai_url, case, ask="Describe a fox.")
        assert set(told["parsed"]) == {"name", "legs"}
        assert 0 <= told["parsed"]["legs"] <= 9
        assert told == told | end


async def test_a_form_that_is_filled_in_a_stream(client: AsyncOpenAI) -> None:
    """The client's helper has the type as soon as the last brace is there; `beta` is where older programs find it."""
    asked: Any = {
        "model": "default",
        "messages": asking("Describe a cow."),
        "response_format": Animal,
        "max_tokens": 200,
    }
    async with client.beta.chat.completions.stream(**asked) as stream:
        kinds = [event.type async for event in stream]
        choice = (await stream.get_final_completion()).choices[0]
    assert "content.delta" in kinds
    assert "content.done" in kinds
    assert isinstance(choice.message.parsed, Animal)


async def test_a_grammar_of_ones_own(client: AsyncOpenAI) -> None:
    """In GBNF, as llama.cpp's server takes it."""
    answer = await client.chat.completions.create(
        model="default", messages=asking("Is snow white?"), extra_body={"grammar": 'root ::= "yes" | "no" | "maybe"'}
    )
    assert answer.choices[0].message.content in ("yes", "no", "maybe")


async def test_what_is_cut_off_says_so(client: AsyncOpenAI) -> None:
    """`max_tokens` ends an answer in the middle of the form: then it is none, and `finish_reason` is `length`."""
    long = {"type": "object", "properties": {"name": {"type": "string", "minLength": 40}}, "required": ["name"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "long", "schema": long}}
    answer = await client.chat.completions.create(
        model="default", messages=asking("Hi"), response_format=form, max_tokens=2
    )
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.choices[0].message.content or "")


async def test_a_killed_agent_leaves_the_form_to_another(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """How far the grammar had come is no state of the agent's: the next one reads it off the tokens already sent."""
    agents = {name: await fleet.agent(name, "--slots", "1", "--threads", "1") for name in ("one", "two")}
    schema = {"type": "object", "properties": {"poem": {"type": "string", "minLength": 200, "maxLength": 220}}}
    form = {"type": "json_schema", "json_schema": {"name": "poem", "schema": {**schema, "required": ["poem"]}}}
    asked: dict[str, Any] = {"response_format": form, "temperature": 0, "max_tokens": 300}
    uninterrupted = await Heard().ask(patient, "A poem, please.", **asked)
    assert 200 <= len(json.loads(uninterrupted.text)["poem"]) <= 220

    told = Heard()
    telling = asyncio.create_task(told.ask(patient, "A poem, please.", **asked))
    await wait_until(lambda: len(told.text) > 80, timeout_s=30, what="it is within the poem")
    agents[(await fleet_queue.agent_names(told.request_id))[-1]].kill()
    await telling
    assert told.text == uninterrupted.text
    assert told.finish_reasons == ["stop"]
    assert told.offsets == await fleet_queue.text_offsets(told.request_id)
