"""Anthropic's client works as it is: the same model, the same queue, another protocol."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from anthropic import AsyncAnthropic, BadRequestError, beta_async_tool
from pydantic import BaseModel, Field
from story_harness import CommandFleet, Queue
from tiny_vision import picture
from up_harness import Up

from paddler.testing.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=30)
    unit: Literal["celsius", "fahrenheit"]


class Sky(BaseModel):
    """What the sky looks like. The client sends no bounds of lengths and numbers, so there are none here."""

    sky: Literal["clear", "cloudy", "raining"]
    is_cold: bool


WEATHER: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": Weather.model_json_schema()}


def asking(text: str, **fields: Any) -> Any:
    """What the client is to ask, as keywords."""
    return {"model": "default", "max_tokens": 60, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
async def anthropic(up: Up) -> AsyncIterator[AsyncAnthropic]:
    """The official client, for `up`."""
    async with AsyncAnthropic(base_url=up.openai_url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


async def test_a_message_whole_and_streamed(anthropic: AsyncAnthropic) -> None:
    fields: Any = asking("Say hello in five words.", system="You are brief.", extra_body={"temperature": 0})
    whole = await anthropic.messages.create(**fields)
    async with anthropic.messages.stream(**fields) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        told = await stream.get_final_message()
    [block] = told.content
    assert block.type == "text"
    assert text == block.text
    assert told.stop_reason == whole.stop_reason
    assert told.usage.output_tokens == whole.usage.output_tokens
    assert whole.content


async def test_tokens_are_counted_before_anything_is_generated(anthropic: AsyncAnthropic, queue: Queue) -> None:
    """Exactly: an agent renders the prompt and tokenises it, and computes nothing."""
    turns: Any = asking("What is the weather in Paris?")["messages"]
    prompts: list[Any] = [
        {"messages": turns},
        {"messages": [*turns, {"role": "assistant", "content": "It is"}]},
        {"messages": turns, "system": "You are brief."},
        {"messages": turns, "system": "You are brief.", "tools": [WEATHER], "tool_choice": {"type": "any"}},
    ]
    for prompt in prompts:
        count = await anthropic.messages.count_tokens(model="default", **prompt)
        message = await anthropic.messages.create(**asking("") | prompt | {"max_tokens": 100})
        usage = message.usage
        assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert await queue.is_empty()


async def test_a_prompt_of_before_is_read_from_the_cache(anthropic: AsyncAnthropic) -> None:
    """Nobody has to ask for it: `cache_control` is accepted and changes nothing."""
    system: Any = [{"type": "text", "text": "You are a fox. " * 60, "cache_control": {"type": "ephemeral"}}]
    first = await anthropic.messages.create(**asking("Who are you?", system=system, max_tokens=5))
    again = await anthropic.messages.create(**asking("Where are you?", system=system, max_tokens=5))
    assert first.usage.input_tokens + (first.usage.cache_read_input_tokens or 0) > 240
    assert (again.usage.cache_read_input_tokens or 0) > 200
    assert again.usage.input_tokens < 60


async def test_it_says_where_it_has_stopped(anthropic: AsyncAnthropic) -> None:
    fields: Any = asking("Count from one to ten.", max_tokens=40, extra_body={"temperature": 0})
    free = (await anthropic.messages.create(**fields)).content[0].to_dict()
    word = str(free["text"]).split()[2]
    told = await anthropic.messages.create(**fields, stop_sequences=["never that", word])
    assert (told.stop_reason, told.stop_sequence) == ("stop_sequence", word)
    assert str(told.content[0].to_dict()["text"]) == str(free["text"]).partition(word)[0]
    assert (await anthropic.messages.create(**asking("A long story.", max_tokens=3))).stop_reason == "max_tokens"


async def test_a_form_to_fill(anthropic: AsyncAnthropic) -> None:
    """The client makes a schema of a class, the model is held to it, and the client makes an object of the answer."""
    answer = await anthropic.messages.parse(
        **asking("What is the weather in Paris?", max_tokens=200), output_format=Sky
    )
    assert isinstance(answer.parsed_output, Sky)
    async with anthropic.messages.stream(**asking("And in Rome?", max_tokens=200), output_format=Sky) as stream:
        told = await stream.get_final_message()
    assert isinstance(told.parsed_output, Sky)


async def test_a_tool_runner(anthropic: AsyncAnthropic) -> None:
    """The client's own loop: it calls what the model wants called, and sends back what comes of it."""
    seen: list[str] = []

    @beta_async_tool
    async def weather(city: str, unit: Literal["celsius", "fahrenheit"]) -> str:
        """The weather of a city."""
        seen.append(f"{city} {unit}")
        return "Sunny, 21 degrees."

    runner = anthropic.beta.messages.tool_runner(
        **asking("What is the weather in Paris?", max_tokens=300),
        tools=[weather],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        max_iterations=2,
    )
    messages: list[Any] = []
    async for message in runner:
        messages.append(message)
        answering: Any = {**runner._params, "tool_choice": {"type": "none"}, "max_tokens": 60}
        runner.set_messages_params(answering)
    assert len(seen) == 1
    called, answer = messages
    assert called.stop_reason == "tool_use"
    assert [block.type for block in answer.content] == ["text"]


async def test_a_stream_of_an_input(anthropic: AsyncAnthropic) -> None:
    fields: Any = asking("What is the weather in Rome?", max_tokens=300, tools=[WEATHER])
    fields["tool_choice"] = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    async with anthropic.messages.stream(**fields) as stream:
        pieces = [event.partial_json async for event in stream if event.type == "input_json"]
        told = await stream.get_final_message()
    [call] = told.content
    assert call.type == "tool_use"
    assert len(pieces) > 3
    assert Weather.model_validate(call.input) == Weather.model_validate_json("".join(pieces))
    assert told.stop_reason == "tool_use"


async def test_what_this_model_cannot_do(anthropic: AsyncAnthropic) -> None:
    """Only the agent knows, and its answer is in the client's own words."""
    fields: Any = asking("Think.")
    with pytest.raises(BadRequestError, match="`thinking`"):
        await anthropic.messages.create(**fields, thinking={"type": "enabled", "budget_tokens": 1024})
    assert (await anthropic.messages.create(**fields, thinking={"type": "disabled"})).content
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture(1)).decode()}
    shown: Any = asking("", system="Look.")
    shown["messages"][0]["content"] = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    with pytest.raises(BadRequestError, match=r"`messages\[0\].content\[1\]`") as refused:
        await anthropic.messages.create(**shown)
    assert refused.value.error_code == "multimodal_not_supported"


async def test_a_killed_agent_leaves_its_message_to_another(fleet: CommandFleet, fleet_queue: Queue) -> None:
    """The client sees one message: no event twice, none missing."""
    agents = {name: await fleet.agent(name, "--slots", "1", "--threads", "1") for name in ("one", "two")}
    kinds: list[str] = []
    async with (
        AsyncAnthropic(base_url=fleet.balancer_url, api_key="none", max_retries=0, timeout=60) as client,
        client.messages.stream(**asking("Tell me a long story.", max_tokens=150)) as stream,
    ):
        async for event in stream:
            kinds.append(event.type)
            if kinds.count("text") == 10 and event.type == "text":
                assert stream.request_id is not None
                agents[(await fleet_queue.agent_names(stream.request_id))[-1]].kill()
        told = await stream.get_final_message()
    assert [kinds.count(kind) for kind in ("message_start", "content_block_start", "message_stop")] == [1, 1, 1]
    assert stream.request_id is not None
    await wait_until(fleet_queue.is_empty, what="the queue is empty")
    assert told.usage.output_tokens == await fleet_queue.num_tokens(stream.request_id)
    assert len(await fleet_queue.agent_names(stream.request_id)) == 2
