"""`/v1/responses` with the official client, sync and async, on a fleet whose agent runs a scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer, NewBalancer
from openai import APIError, AsyncOpenAI, BadRequestError, InternalServerError, NotFoundError
from openai.lib.responses_tool_runner import AsyncRegisteredFunction, AsyncResponsesToolRunner
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage, ResponseReasoningItem

from paddler.store.client import Store
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

SAY = "snow ☃, a pair 😀 and a stop"
LOOK = '{"at": "the \\"fox\\" ☃"}'
CALL = f'<tool_call>\n{{"name": "look", "arguments": {LOOK}}}\n</tool_call>'
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"], "additionalProperties": False}
TOOLS: Any = [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": True}]


def saying(text: str) -> str:
    return f"[[say={text}]]"


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def client(balancer: HttpBalancer, fleet: Fleet) -> AsyncIterator[AsyncOpenAI]:
    await fleet.agent(slots=4, step_s=0.002)
    async with balancer.openai() as client:
        yield client


async def done(client: AsyncOpenAI, response: Response) -> Response:
    """Poll a response until it has ended."""

    async def is_done() -> Response | None:
        found = await client.responses.retrieve(response.id)
        return found if found.status not in ("queued", "in_progress") else None

    return await wait_until(is_done)


async def test_a_whole_answer(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="default", input=saying(SAY), metadata={"k": "v"}, user="me")
    assert (response.output_text, response.status, response.error) == (SAY, "completed", None)
    [message] = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert (message.role, message.status, message.content[0].type) == ("assistant", "completed", "output_text")
    assert response.usage is not None
    assert response.usage.output_tokens > len(SAY)
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.input_tokens_details.cached_tokens >= 0
    assert response.usage.output_tokens_details.reasoning_tokens == 0
    assert (response.metadata, response.user, response.tools, response.tool_choice) == ({"k": "v"}, "me", [], "auto")
    assert response.id == f"resp_{response._request_id}"
    assert await client.responses.retrieve(response.id) == response


async def test_input_tokens_are_counted_as_usage_has_them(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="default", input=saying("one"), instructions="Be brief.", tools=TOOLS)
    for input, previous in ((saying("one"), None), (saying("two"), first.id)):
        asked: Any = {"model": "default", "input": input, "instructions": "Be brief.", "tools": TOOLS}
        if previous is not None:
            asked["previous_response_id"] = previous
        counted = await client.responses.input_tokens.count(**asked)
        response = await client.responses.create(**asked)
        assert response.usage is not None
        assert (counted.object, counted.input_tokens) == ("response.input_tokens", response.usage.input_tokens)


@pytest.mark.parametrize("name", ["stream", "background", "store"])
async def test_counting_takes_nothing_that_is_about_an_answer(client: AsyncOpenAI, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        await client.responses.input_tokens.count(model="default", input="x", extra_body={name: True})
    assert caught.value.param == name


async def test_the_sync_client(client: AsyncOpenAI, balancer: HttpBalancer) -> None:
    def whole_and_stream() -> tuple[str, str]:
        with balancer.openai_sync("openai") as sync:
            whole = sync.responses.create(model="default", input="hi", temperature=0, max_output_tokens=5)
            assert whole.incomplete_details is not None
            assert whole.incomplete_details.reason == "max_output_tokens"
            stream = sync.responses.create(model="default", input="hi", temperature=0, max_output_tokens=5, stream=True)
            return whole.output_text, "".join(e.delta for e in stream if e.type == "response.output_text.delta")

    whole, streamed = await asyncio.to_thread(whole_and_stream)
    assert whole == streamed
    assert whole


async def test_a_plain_stream(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="default", input=saying(SAY), stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAY
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        *("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"),
        *("response.output_text.delta", "response.output_text.done", "response.content_part.done"),
        *("response.output_item.done", "response.completed"),
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert await client.responses.retrieve(last.response.id) == last.response


async def test_the_stream_helper(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="default", input=saying(SAY)) as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        response = await stream.get_final_response()
    assert snapshots[-1] == response.output_text == SAY


async def test_reasoning_is_an_item_of_its_own(client: AsyncOpenAI) -> None:
    asked: Any = {
        "model": "default",
        "input": saying("a thought\n</think>\n\nan answer") + "[[think]]",
        "temperature": 0,
    }
    response = await client.responses.create(**asked)
    thought, message = response.output
    assert isinstance(thought, ResponseReasoningItem)
    assert thought.content is not None
    assert [part.text for part in thought.content] == ["a thought"]
    assert isinstance(message, ResponseOutputMessage)
    assert response.output_text == "an answer"
    assert response.usage is not None
    assert 0 < response.usage.output_tokens_details.reasoning_tokens < response.usage.output_tokens
    async with client.responses.stream(**asked) as stream:
        events = [event async for event in stream]
        streamed = await stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.reasoning_text.delta") == "a thought"
    assert [item.type for item in streamed.output] == ["reasoning", "message"]
    assert (await client.responses.retrieve(streamed.id)).usage == streamed.usage


async def test_a_call_and_its_result(client: AsyncOpenAI) -> None:
    """What came goes back as it came."""
    input: Any = [{"role": "user", "content": saying(CALL)}]
    first = await client.responses.create(model="default", input=input, tools=TOOLS)
    [call] = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.arguments, call.status) == ("look", LOOK, "completed")
    input[0]["content"] = "What is there?"
    input += first.output
    input.append({"type": "function_call_output", "call_id": call.call_id, "output": saying("a fox")})
    second = await client.responses.create(model="default", input=input, tools=TOOLS)
    assert second.output_text == "a fox"
    input += second.output
    input.append({"role": "user", "content": saying("two")})
    assert (await client.responses.create(model="default", input=input, tools=TOOLS)).output_text


async def test_a_call_in_a_stream(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="default", input=saying(f"I look.\n{CALL}"), tools=TOOLS) as stream:
        events = [event async for event in stream]
        response = await stream.get_final_response()
    snapshots = [event.snapshot for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(snapshots) > 1
    message, call = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert isinstance(call, ResponseFunctionToolCall)
    assert call.arguments == snapshots[-1] == LOOK
    assert response.output_text == "I look."


@pytest.mark.parametrize("stream", [False, True])
async def test_the_tool_runner(client: AsyncOpenAI, stream: bool) -> None:
    """The client's own loop: it checks each item that comes, calls, and sends everything back."""
    asked: list[Any] = []

    async def look(arguments: dict[str, object]) -> str:
        asked.append(arguments["at"])
        return "[[now=a fox]]"

    runner = AsyncResponsesToolRunner(functions=[AsyncRegisteredFunction(TOOLS[0], look)])
    response = await runner.run(client, {"model": "default", "input": saying(CALL)}, stream=stream, max_steps=4)
    assert asked == ['the "fox" ☃']
    assert response.output_text == "a fox"


async def test_a_conversation_by_its_last_response(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="default", input="[[tokens=3]]")
    second = await client.responses.create(
        model="default", input="more", previous_response_id=first.id, include=["reasoning.encrypted_content"]
    )
    assert second.previous_response_id == first.id
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens >= 0
    with pytest.raises(BadRequestError) as missing:
        await client.responses.create(model="default", input="more", previous_response_id=f"{first.id[:-3]}xxx")
    assert missing.value.param == "previous_response_id"


async def test_in_the_background(client: AsyncOpenAI, new_balancer: NewBalancer) -> None:
    response = await client.responses.create(model="default", input=saying(SAY), background=True)
    assert response.status in ("queued", "in_progress")
    async with (await new_balancer()).openai() as elsewhere:
        response = await done(elsewhere, response)
    assert (response.status, response.output_text, response.background) == ("completed", SAY, True)


async def test_a_background_stream_is_gone_on_with_on_another_balancer(
    client: AsyncOpenAI, new_balancer: NewBalancer
) -> None:
    """While it runs: the first client is cut off, the second has the rest, no event twice, none missing."""
    stream = await client.responses.create(
        model="default", input="[[tokens=200]]", background=True, stream=True, temperature=0
    )
    had: list[Any] = []
    async for event in stream:
        had.append(event)
        if len(had) == 20:
            await stream.close()
            break
    response_id = had[0].response.id
    async with (await new_balancer()).openai() as elsewhere:
        rest = await elsewhere.responses.retrieve(response_id, stream=True, starting_after=had[-1].sequence_number)
        events = had + [event async for event in rest]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.completed"
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == events[-1].response.output_text
        async with elsewhere.responses.stream(response_id=response_id, starting_after=19) as helper:
            again = [event.type async for event in helper]
            assert (await helper.get_final_response()).output_text == text
        assert again == [event.type for event in events[20:]]
        whole = await elsewhere.responses.retrieve(response_id, stream=True)
        assert [event async for event in whole] == events


async def test_cancelling_and_deleting(client: AsyncOpenAI, fleet: Fleet) -> None:
    response = await client.responses.create(model="default", input="[[tokens=5000]]", background=True)
    cancelled = await client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    await wait_until(fleet.is_idle)
    assert (await client.responses.retrieve(response.id)).status == "cancelled"
    assert (await client.responses.cancel(response.id)).status == "cancelled"
    await client.responses.delete(response.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(response.id)


async def test_the_items_of_an_input(client: AsyncOpenAI) -> None:
    input: Any = [{"role": "user", "content": f"number {number}"} for number in range(5)]
    response = await client.responses.create(model="default", input=input)
    pages = client.responses.input_items.list(response.id, limit=2, order="asc")
    texts = [
        item.content[0].text async for item in pages if item.type == "message" and item.content[0].type == "input_text"
    ]
    assert texts == [f"number {number}" for number in range(5)]


async def test_log_probabilities(client: AsyncOpenAI) -> None:
    asked: Any = {
        "model": "default",
        "input": "[[tokens=4]]",
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    response = await client.responses.create(**asked, temperature=0)
    [message] = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert message.content[0].type == "output_text"
    logprobs = message.content[0].logprobs
    assert logprobs is not None
    assert "".join(one.token for one in logprobs) == response.output_text
    assert {len(one.top_logprobs) for one in logprobs} == {2}
    stream = await client.responses.create(**asked, temperature=0, stream=True)
    told = [one.token async for event in stream if event.type == "response.output_text.delta" for one in event.logprobs]
    assert told == [one.token for one in logprobs]


async def test_errors_are_the_clients_own(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as bad:
        await client.responses.create(model="default", input="hi", temperature=5)
    assert (bad.value.param, bad.value.code) == ("temperature", "invalid_field")
    with pytest.raises(NotFoundError) as unknown:
        await client.responses.create(model="gpt-9", input="hi")
    assert unknown.value.code == "model_not_found"
    for stream in (False, True):
        with pytest.raises(InternalServerError) as failed:
            await client.responses.create(model="default", input="[[fail]]", stream=stream)
        assert failed.value.code == "engine_failed"
        with pytest.raises(BadRequestError) as long:
            await client.responses.create(model="default", input="word " * 9000, stream=stream)
        assert (long.value.code, long.value.param) == ("context_length_exceeded", "input")


async def test_an_error_within_a_stream_is_an_event(new_balancer: NewBalancer, fleet: Fleet) -> None:
    balancer = await new_balancer()
    await fleet.agent(slots=1, step_s=0.01)
    async with balancer.openai() as client:
        stream = await client.responses.create(model="default", input="[[tokens=5000]]", stream=True)
        await anext(stream)
        balancer.gateway.stop_accepting()
        events = [event async for event in stream]
        assert events[-1].type == "error"
        assert events[-1].code == "shutting_down"
        with pytest.raises(APIError):
            await client.responses.create(model="default", input="hi")
