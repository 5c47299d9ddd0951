"""A model that calls your functions: which, and with what, is enforced, even of a model that never learned it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, pydantic_function_tool
from pydantic import BaseModel, Field
from story_harness import CommandFleet, Queue, asking

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=30)
    unit: Literal["celsius", "fahrenheit"]


TOOLS = [pydantic_function_tool(Weather)]


async def test_a_call_and_the_answer_to_its_result(client: AsyncOpenAI) -> None:
    """SmolLM2's template knows no tools, so Paddler tells the model of them. What comes back goes back as it is."""
    turns: list[Any] = asking("What is the weather in Paris?")
    first = await client.chat.completions.parse(
        model="default", messages=turns, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=300
    )
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    calls = [{"id": call.id, "type": "function", "function": {"name": "Weather", "arguments": call.function.arguments}}]
    turns += [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."},
    ]
    second = await client.chat.completions.create(
        model="default", messages=turns, tools=TOOLS, tool_choice="none", max_tokens=60
    )
    assert second.choices[0].message.content
    assert second.choices[0].message.tool_calls is None


async def test_a_stream_of_arguments(client: AsyncOpenAI) -> None:
    """The client's own helper puts the pieces together."""
    async with client.chat.completions.stream(
        model="default",
        messages=asking("What is the weather in Rome?"),
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "Weather"}},
        parallel_tool_calls=False,
        max_tokens=300,
    ) as stream:
        kinds = [event.type async for event in stream]
        told = (await stream.get_final_completion()).choices[0].message
    assert kinds.count("tool_calls.function.arguments.delta") > 3
    assert told.tool_calls is not None
    assert isinstance(told.tool_calls[0].function.parsed_arguments, Weather)


async def test_what_the_model_need_not_call(client: AsyncOpenAI) -> None:
    """With `auto` it may answer as ever; whatever it does, no call is malformed."""
    answer = await client.chat.completions.create(
        model="default", messages=asking("Say hello."), tools=TOOLS, max_tokens=60, temperature=0
    )
    message = answer.choices[0].message
    assert message.content or message.tool_calls


async def test_a_killed_agent_leaves_its_call_to_another(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """In the middle of the arguments: the stream goes on, under the same id, and they are whole."""
    agents = {name: await fleet.agent(name, "--slots", "1", "--threads", "1") for name in ("one", "two")}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"poem": {"type": "string", "minLength": 200, "maxLength": 220}},
    }
    schema |= {"required": ["poem"]}
    tool: Any = {"type": "function", "function": {"name": "recite", "parameters": schema}}
    asked: Any = {
        "model": "default", "messages": asking("A poem, please."), "tools": [tool], "tool_choice": "required",
        "parallel_tool_calls": False, "temperature": 0, "max_tokens": 400,
    }  # fmt: skip
    told: list[Any] = []

    async def listen() -> None:
        async for chunk in await patient.chat.completions.create(**asked, stream=True):
            told.append(chunk)  # noqa: PERF401  # it is looked at while it comes

    def fragments() -> str:
        deltas = [chunk.choices[0].delta for chunk in told]
        return "".join(delta.tool_calls[0].function.arguments for delta in deltas if delta.tool_calls)

    listening = asyncio.create_task(listen())
    await wait_until(lambda: len(fragments()) > 60, timeout_s=30, what="it is within the poem")
    before = fragments()
    [request_id] = {chunk.id.removeprefix("chatcmpl-") for chunk in told}
    agents[(await fleet_queue.agent_names(request_id))[-1]].kill()
    await listening
    # Which words follow may differ from what the first would have said: a prompt with tools is longer than a tile of
    # llama.cpp's (`workers/agent/DESIGN.md`, *What must hold*). Nothing is repeated, missing or against the schema.
    assert fragments().startswith(before)
    assert 200 <= len(json.loads(fragments())["poem"]) <= 220
    calls = [call for chunk in told for call in chunk.choices[0].delta.tool_calls or () if call.id]
    assert [(call.index, call.function.name) for call in calls] == [(0, "recite")], "the call begins once"
    assert told[-1].choices[0].finish_reason == "tool_calls"
