"""Tools and reasoning with the official client, streamed and whole, on a fleet whose agent runs a scripted engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fleet_harness import Fleet
from http_harness import HandAgent, HttpBalancer, NewBalancer, chat
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletionMessage

from paddler.chat_formats.ids import call_id
from paddler.store.client import Store
from paddler.wire.balancer import FinishReason, Prefilled, TextFormat

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("look", "go")]
LOOK = '{"at": "the \\"fox\\" ☃"}'
CALL = f'<tool_call>\n{{"name": "look", "arguments": {LOOK}}}\n</tool_call>'


def asking(said: str) -> Any:
    return [{"role": "user", "content": f"[[say={said}]]"}]


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def client(balancer: HttpBalancer, fleet: Fleet) -> AsyncIterator[AsyncOpenAI]:
    await fleet.agent(slots=4, step_s=0.001)
    async with balancer.openai() as client:
        yield client


def calls_of(message: ChatCompletionMessage) -> list[tuple[str, str]]:
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    return [(call.function.name, call.function.arguments) for call in calls]


async def test_a_call_and_its_result(client: AsyncOpenAI) -> None:
    """The whole loop: what came goes back as it came, with a result, and the answer is content."""
    turns = asking(CALL)
    first = await client.chat.completions.create(model="default", messages=turns, tools=TOOLS)
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert calls_of(choice.message) == [("look", LOOK)]
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.id == call_id(first.id.removeprefix("chatcmpl-"), 0)
    turns[0]["content"] = "What is there?"
    turns += [choice.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "[[say=a fox]]"}]
    second = await client.chat.completions.create(model="default", messages=turns, tools=TOOLS)
    assert second.choices[0].message.content == "a fox"
    assert second.choices[0].message.tool_calls is None
    assert second.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("said", "content", "calls"),
    [
        (CALL, None, [("look", LOOK)]),
        (f"I look.\n{CALL}\n{CALL.replace('look', 'go')}", "I look.", [("look", LOOK), ("go", LOOK)]),
        ("<tool_call>oh</tool_call> no", "<tool_call>oh</tool_call> no", []),
        ("plain <", "plain <", []),
    ],
)
async def test_a_stream_says_the_same_as_a_whole_answer(
    client: AsyncOpenAI, said: str, content: str | None, calls: list[tuple[str, str]]
) -> None:
    asked: Any = {"model": "default", "messages": asking(said), "tools": TOOLS, "temperature": 0}
    whole = (await client.chat.completions.create(**asked)).choices[0]
    assert (whole.message.content, calls_of(whole.message)) == (content, calls)
    async with client.chat.completions.stream(**asked) as stream:
        names = [event.type async for event in stream]
        told = (await stream.get_final_completion()).choices[0]
    assert (told.message.content, calls_of(told.message)) == (content, calls)
    assert told.finish_reason == whole.finish_reason == ("tool_calls" if calls else "stop")
    assert ("tool_calls.function.arguments.delta" in names) == bool(calls)
    assert len({call.id for call in told.message.tool_calls or ()}) == len(calls)


async def test_chunks_of_a_call_come_as_openais(client: AsyncOpenAI) -> None:
    stream: Any = await client.chat.completions.create(
        model="default", messages=asking(CALL), tools=TOOLS, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta.to_dict() for chunk in chunks if chunk.choices]
    role, begun, *fragments, last = deltas
    assert role == {"role": "assistant", "content": None}
    request_id = chunks[0].id.removeprefix("chatcmpl-")
    function = {"name": "look", "arguments": ""}
    assert begun == {
        "tool_calls": [{"index": 0, "id": call_id(request_id, 0), "type": "function", "function": function}]
    }
    assert len(fragments) > 1
    assert all(one["tool_calls"][0].keys() == {"index", "function"} for one in fragments)
    assert "".join(one["tool_calls"][0]["function"]["arguments"] for one in fragments) == LOOK
    assert last == {}
    assert chunks[-1].usage is not None


async def test_reasoning_is_apart(client: AsyncOpenAI) -> None:
    asked: Any = {"model": "default", "messages": asking("a thought\n</think>\n\nan answer"), "temperature": 0}
    asked["messages"][0]["content"] += "[[think]]"
    whole = (await client.chat.completions.create(**asked)).choices[0].message
    assert whole.content == "an answer"
    assert whole.to_dict()["reasoning_content"] == "a thought"
    async with client.chat.completions.stream(**asked) as stream:
        told = (await stream.get_final_completion()).choices[0].message
    assert told.content == "an answer"
    assert told.to_dict()["reasoning_content"] == "a thought"
    turns: Any = [*asked["messages"], whole.to_dict(), {"role": "user", "content": "[[say=more]]"}]
    assert (await client.chat.completions.create(model="default", messages=turns)).choices[0].message.content


async def test_what_is_cut_off_is_no_whole_call(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="default", messages=asking(CALL), tools=TOOLS, max_tokens=52)
    assert answer.choices[0].finish_reason == "length"
    [(name, arguments)] = calls_of(answer.choices[0].message)
    assert name == "look"
    assert LOOK.startswith(arguments)
    assert arguments != LOOK


@pytest.mark.parametrize("said", [CALL, f"{CALL.replace('fox', 'x')}\n{CALL}"], ids=["first", "second"])
async def test_a_stop_string_in_arguments_ends_no_call(client: AsyncOpenAI, said: str) -> None:
    """Whoever acts on `tool_calls` may trust in the arguments."""
    asked: Any = {"model": "default", "messages": asking(said + "!"), "tools": TOOLS, "stop": ["fox"]}
    whole = (await client.chat.completions.create(**asked)).choices[0]
    assert whole.finish_reason == "stop"
    assert calls_of(whole.message)[-1] == ("look", LOOK[: LOOK.index("fox")])
    stream: Any = await client.chat.completions.create(**asked, stream=True)
    assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "stop"


async def test_tools_that_may_not_be_called_are_not_read(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="default", messages=asking(CALL), tools=TOOLS, tool_choice="none"
    )
    assert answer.choices[0].message.content == CALL
    assert answer.choices[0].finish_reason == "stop"


async def test_choices_have_calls_of_their_own(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="default", messages=asking(CALL), tools=TOOLS, n=3)
    assert [choice.finish_reason for choice in answer.choices] == ["tool_calls"] * 3
    assert all(calls_of(choice.message) == [("look", LOOK)] for choice in answer.choices)
    assert len({call.id for choice in answer.choices for call in choice.message.tool_calls or ()}) == 3


async def test_choices_of_a_stream_have_calls_of_their_own(client: AsyncOpenAI) -> None:
    """Each call is told at its choice's index, and no two are called alike."""
    said = f"{CALL}\n{CALL.replace('look', 'go')}"
    asked: Any = {"model": "default", "messages": asking(said), "tools": TOOLS, "n": 2}
    stream: Any = await client.chat.completions.create(**asked, stream=True)
    begun: list[tuple[int, int, str, str]] = []
    arguments: dict[tuple[int, int], str] = {}
    ends: dict[int, str] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                if call.id is not None:
                    begun.append((choice.index, call.index, call.function.name, call.id))
                place = choice.index, call.index
                arguments[place] = arguments.get(place, "") + call.function.arguments
            if choice.finish_reason is not None:
                ends[choice.index] = choice.finish_reason
    assert sorted(one[:3] for one in begun) == [(0, 0, "look"), (0, 1, "go"), (1, 0, "look"), (1, 1, "go")]
    assert len({one[3] for one in begun}) == 4
    assert arguments == {(choice, call): LOOK for choice in (0, 1) for call in (0, 1)}
    assert ends == {0: "tool_calls", 1: "tool_calls"}
    async with client.chat.completions.stream(**asked) as told:
        choices = (await told.get_final_completion()).choices
    assert [calls_of(choice.message) for choice in choices] == [[("look", LOOK), ("go", LOOK)]] * 2


async def test_mistakes_are_told_before_anything_is_queued(client: AsyncOpenAI, balancer: HttpBalancer) -> None:
    bad: Any = {"type": "function", "function": {"name": "bad", "parameters": {"properties": {"a": {"if": 1}}}}}
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(model="default", messages=asking("x"), tools=[*TOOLS, bad])
    assert caught.value.param == "tools[2].function.parameters"
    assert await balancer.is_idle()


def events_of(text: str) -> list[tuple[int, Any]]:
    """Journal offsets and deltas. An offset stands on the last event of its frame."""
    found: list[tuple[int, Any]] = []
    deltas: list[Any] = []
    for line in text.splitlines():
        if line.startswith("data: {") and (choices := json.loads(line[6:])["choices"]):
            deltas.append(choices[0]["delta"])
        elif line.startswith("id: ") and deltas:
            found.append((int(line.rpartition(":")[2]), deltas))
            deltas = []
    return found


async def test_any_balancer_goes_on_from_any_event(
    balancer: HttpBalancer, new_balancer: NewBalancer, client: AsyncOpenAI
) -> None:
    """In the middle of a thought, of content, of arguments: together both streams say what one says."""
    other = await new_balancer()
    said = f"hm\n</think>\n\nI look.\n{CALL}\n{CALL}"
    body = chat(f"[[say={said}]] [[think]]", stream=True, tools=TOOLS)
    async with balancer.http() as http:
        response = await http.post("/v1/chat/completions", json=body)
    request_id = response.headers["x-request-id"]
    whole = events_of(response.text)
    assert len(whole) > 4
    async with other.http() as http:

        async def rest(offset: int) -> list[Any]:
            headers = {"last-event-id": f"{request_id}:{offset}"}
            answer: httpx.Response = await http.get(f"/v1/requests/{request_id}/stream", headers=headers)
            return [delta for _, deltas in events_of(answer.text) for delta in deltas]

        tails = await asyncio.gather(*(rest(offset) for offset, _ in whole))
        status = (await http.get(f"/v1/requests/{request_id}")).json()["response"]
    for index, tail in enumerate(tails):
        assert tail == [delta for _, deltas in whole[index + 1 :] for delta in deltas], index
    message = status["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("I look.", "hm")
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == [LOOK, LOOK]
    assert status["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_request_that_changes_hands_says_its_format_once(balancer: HttpBalancer, agent: HandAgent) -> None:
    """The second agent says the format again, and its calls go on in the same text."""
    async with balancer.openai() as client:
        asked: Any = {"model": "default", "messages": asking("x"), "tools": TOOLS}
        task = asyncio.create_task(client.chat.completions.create(**asked))
        request = await agent.take()
        await request.emit(Prefilled(5, 0, TextFormat("hermes")))
        await request.say(CALL[:40])
        await request.emit(Prefilled(5, 5, TextFormat("hermes")))
        await request.say(CALL[40:])
        await request.finish(FinishReason.STOP)
        assert calls_of((await task).choices[0].message) == [("look", LOOK)]
