"""The newer way to ask: a response is stored, goes on without you, and the next one need not be told what was said."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, BadRequestError, pydantic_function_tool
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel, Field
from story_harness import CommandFleet, Queue
from up_harness import Up

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=30)
    unit: Literal["celsius", "fahrenheit"]


async def test_an_answer_and_the_next_one(client: AsyncOpenAI) -> None:
    """The second names the first: what both have said is put together from what is stored, and the agent that holds it
    in its KV cache computes little."""
    first = await client.responses.create(
        model="default", input="Name a fish.", instructions="Answer in one word.", max_output_tokens=20, temperature=0
    )
    assert first.output_text
    second = await client.responses.create(
        model="default", input="And a bird?", instructions="Answer in one word.", previous_response_id=first.id,
        max_output_tokens=20, temperature=0,
    )  # fmt: skip
    assert second.output_text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens // 2


async def test_a_stream_in_events(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="default", input="Say hello.", max_output_tokens=40) as stream:
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert text == last.response.output_text  # pyright: ignore[reportAttributeAccessIssue]  # both are responses


async def test_thinking_that_a_model_cannot_do(client: AsyncOpenAI) -> None:
    """Told by the agent, in the words of what the client has sent."""
    with pytest.raises(BadRequestError, match="this model cannot think first") as wrong:
        await client.responses.create(model="default", input="Why?", reasoning={"effort": "high"})
    assert wrong.value.param == "reasoning.effort"
    asked = client.responses.create(model="default", input="Hi", reasoning={"effort": "none"}, max_output_tokens=4)
    assert (await asked).output_text


async def test_an_answer_of_a_given_form(client: AsyncOpenAI) -> None:
    response = await client.responses.parse(
        model="default", input="The weather in Paris, as JSON.", text_format=Weather, max_output_tokens=200
    )
    assert isinstance(response.output_parsed, Weather)
    async with client.responses.stream(
        model="default", input="The weather in Rome, as JSON.", text_format=Weather, max_output_tokens=200
    ) as stream:
        streamed = await stream.get_final_response()
    assert isinstance(streamed.output_parsed, Weather)


async def test_a_call_that_is_enforced(client: AsyncOpenAI) -> None:
    function: Any = pydantic_function_tool(Weather)["function"]
    tools: Any = [{"type": "function", **function}]
    response = await client.responses.parse(
        model="default", input="What is the weather in Paris?", tools=tools,
        tool_choice="required", parallel_tool_calls=False, max_output_tokens=300,
    )  # fmt: skip
    [call] = response.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert call.status == "completed"
    Weather.model_validate_json(call.arguments)


async def test_in_the_background_through_the_death_of_its_agent(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """Its events go on, under the numbers they would have had, and whoever was cut off goes on behind the last."""
    agents = {name: await fleet.agent(name, "--slots", "1", "--threads", "1") for name in ("one", "two")}
    stream = await patient.responses.create(
        model="default", input="Count to fifty.", background=True, stream=True, max_output_tokens=120, temperature=0
    )
    had: list[Any] = []
    async for event in stream:
        had.append(event)
        if len(had) == 12:
            await stream.close()
            break
    response_id = had[0].response.id
    request_id = response_id.removeprefix("resp_")
    agents[(await fleet_queue.agent_names(request_id))[-1]].kill()
    rest = await patient.responses.retrieve(response_id, stream=True, starting_after=had[-1].sequence_number)
    events = had + [event async for event in rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text
    assert len(await fleet_queue.agent_names(request_id)) == 2
    again = await patient.responses.retrieve(response_id)
    assert again.output_text == text


async def test_stopping_one_that_runs(client: AsyncOpenAI, queue: Queue, up: Up) -> None:
    response = await client.responses.create(
        model="default", input="Count to a thousand.", background=True, max_output_tokens=900
    )

    async def speaks() -> bool:
        return bool((await client.responses.retrieve(response.id)).output_text)

    await wait_until(speaks, timeout_s=30)
    assert (await client.responses.cancel(response.id)).status == "cancelled"
    await wait_until(queue.is_empty, timeout_s=5, what="the slot is free")
    cancelled = await client.responses.retrieve(response.id)
    assert (cancelled.status, bool(cancelled.output_text)) == ("cancelled", True)
