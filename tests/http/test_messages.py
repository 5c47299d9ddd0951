"""`POST /v1/messages` with the official `anthropic` client, on a fleet whose agent runs a scripted engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    BadRequestError,
    ContentTooLargeError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
    beta_async_tool,
)
from anthropic.types import MessageParam
from fleet_harness import Fleet
from http_harness import MAX_BODY, HandAgent, HttpBalancer, NewBalancer, chat

from api.anthropic.objects import tool_use_id
from paddler.store.client import Store
from paddler.store.results import Outcome
from paddler.testing.scripted import ScriptedEngine
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import Finished, FinishReason, Prefilled

pytestmark = pytest.mark.anyio

MESSAGES = "/v1/messages"
SAY = "snow ☃, a pair 😀 and a stop"
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
TOOLS: Any = [{"name": name, "input_schema": SCHEMA} for name in ("look", "go")]
LOOK = '{"at": "the \\"fox\\" ☃"}'
CALL = f'<tool_call>\n{{"name": "look", "arguments": {LOOK}}}\n</tool_call>'


def asking(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def asked(text: str, **fields: Any) -> Any:
    """What the client is to ask, as keywords; any of them, so that the typed client takes them."""
    return {"model": "default", "max_tokens": 1000, "messages": asking(text), **fields}


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def client(balancer: HttpBalancer, fleet: Fleet) -> AsyncIterator[AsyncAnthropic]:
    await fleet.agent(slots=4, step_s=0.001)
    async with balancer.anthropic() as client:
        yield client


@pytest.mark.parametrize("service", ["inference", "openai"])
async def test_whole(client: AsyncAnthropic, balancer: HttpBalancer, service: str) -> None:
    async with balancer.anthropic(service) as other:
        message = await other.messages.create(**asked(f"[[say={SAY}]]", system="Be brief."))
    assert message.id == f"msg_{message._request_id}"
    assert (message.type, message.role, message.model) == ("message", "assistant", "default")
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": SAY}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens > len(SAY)
    assert message.usage.input_tokens > 3


async def test_stream_helper(client: AsyncAnthropic) -> None:
    async with client.messages.stream(**asked(f"[[say={SAY}]]")) as stream:
        events = [event async for event in stream]
        told = await stream.get_final_message()
    kinds = [event.type for event in events]
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event.text for event in events if event.type == "text") == SAY
    assert [block.text for block in told.content if block.type == "text"] == [SAY]
    assert told.stop_reason == "end_turn"
    assert stream.request_id == told.id.removeprefix("msg_")
    whole = await client.messages.create(**asked(f"[[say={SAY}]]"))
    assert (whole.content[0].to_dict(), whole.usage.output_tokens) == (
        {"type": "text", "text": SAY},
        told.usage.output_tokens,
    )


async def test_the_end_says_which_stop_sequence_it_was(client: AsyncAnthropic) -> None:
    fields: Any = asked(f"[[say={SAY}]]", stop_sequences=["never", "and a", " stop"])
    whole = await client.messages.create(**fields)
    async with client.messages.stream(**fields) as stream:
        told = await stream.get_final_message()
    for message in (whole, told):
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "and a")
        assert message.content[0].to_dict() == {"type": "text", "text": SAY.partition("and a")[0]}


async def test_usage_counts_cached_tokens_apart(client: AsyncAnthropic) -> None:
    """Three numbers of input tokens that exclude each other; together they are what `count_tokens` says."""
    text = "one two three four five six seven eight nine ten " * 8 + "[[say=ok]]"
    first = await client.messages.create(**asked(text))
    again = await client.messages.create(**asked(text))
    count = await client.messages.count_tokens(model="default", messages=asking(text))
    for message in (first, again):
        usage = message.usage
        assert usage.cache_creation_input_tokens == 0
        assert usage.cache_read_input_tokens is not None
        assert usage.input_tokens + usage.cache_read_input_tokens == count.input_tokens
    assert again.usage.cache_read_input_tokens
    async with client.messages.stream(**asked(text)) as stream:
        events = [event async for event in stream]
        told = await stream.get_final_message()
    assert told.usage.to_dict() == again.usage.to_dict()
    [start] = [event for event in events if event.type == "message_start"]
    assert (start.message.usage.input_tokens, start.message.usage.output_tokens) == (told.usage.input_tokens, 0)


async def test_a_call_and_its_result(client: AsyncAnthropic) -> None:
    """The whole loop: what came goes back as it came, with a result, and the answer is text."""
    first = await client.messages.create(**asked(f"[[say=I look.\n{CALL}]]", tools=TOOLS))
    assert first.stop_reason == "tool_use"
    assert first._request_id is not None
    said, call = first.content
    assert said.to_dict() == {"type": "text", "text": "I look."}
    assert call.type == "tool_use"
    assert (call.id, call.name) == (tool_use_id(first._request_id, 0), "look")
    assert call.input == json.loads(LOOK)
    turns: Any = [*asking("What is there?"), first.to_param()]
    turns.append(
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "[[say=a fox]]"}]}
    )
    second = await client.messages.create(**asked("", tools=TOOLS) | {"messages": turns})
    assert [block.to_dict() for block in second.content] == [{"type": "text", "text": "a fox"}]
    assert second.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (CALL, ["tool_use"]),
        (f"I look.\n{CALL}\n{CALL.replace('look', 'go')}", ["text", "tool_use", "tool_use"]),
        ("<tool_call>oh</tool_call> no", ["text"]),
        (f"[[think]]hm\n</think>\n\nI look.\n{CALL}", ["thinking", "text", "tool_use"]),
    ],
)
async def test_a_stream_says_the_same_as_a_whole_answer(client: AsyncAnthropic, said: str, kinds: list[str]) -> None:
    is_thinking = said.startswith("[[think]]")
    text = f"[[say={said.removeprefix('[[think]]')}]]" + ("[[think]]" if is_thinking else "")
    whole = await client.messages.create(**asked(text, tools=TOOLS))
    async with client.messages.stream(**asked(text, tools=TOOLS)) as stream:
        events = [event.type async for event in stream]
        told = await stream.get_final_message()
    assert [block.type for block in told.content] == [block.type for block in whole.content] == kinds
    assert ("input_json" in events) == ("tool_use" in kinds)
    assert ("thinking" in events) == ("thinking" in kinds)
    for one, other in zip(told.content, whole.content, strict=True):
        assert one.to_dict() | {"id": ""} == other.to_dict() | {"id": ""}
    assert told.stop_reason == whole.stop_reason == ("tool_use" if "tool_use" in kinds else "end_turn")
    again: Any = [*asking(text), whole.to_param(), *asking("[[say=more]]")]
    assert (await client.messages.create(**asked("") | {"messages": again})).content


async def test_thoughts_may_be_left_out(client: AsyncAnthropic) -> None:
    fields: Any = asked("[[say=hm\n</think>\n\nyes]][[think]]", thinking={"type": "adaptive", "display": "omitted"})
    whole = await client.messages.create(**fields)
    async with client.messages.stream(**fields) as stream:
        told = await stream.get_final_message()
    for message in (whole, told):
        assert [block.to_dict() for block in message.content] == [
            {"type": "thinking", "thinking": "", "signature": "paddler"},
            {"type": "text", "text": "yes"},
        ]


async def test_a_tool_runner_goes_on_without_a_thread(client: AsyncAnthropic) -> None:
    """The client asks for a conversation that the server keeps. Told by its own code that there is none, it sends the
    whole of it."""
    seen: list[str] = []

    @beta_async_tool
    async def look(at: str) -> str:
        """Looks."""
        seen.append(at)
        return "[[say=a fox]]"

    runner = client.beta.messages.tool_runner(**asked(f"[[say={CALL}]]"), tools=[look], max_iterations=2)
    messages = [message async for message in runner]
    assert seen[0] == json.loads(LOOK)["at"]
    assert [message.stop_reason for message in messages] == ["tool_use", "tool_use"]


async def test_errors_are_the_clients_own(client: AsyncAnthropic) -> None:
    with pytest.raises(BadRequestError) as bad:
        await client.messages.create(**asked("hi"), extra_body={"temperature": 5})
    assert (bad.value.type, bad.value.error_code) == ("invalid_request_error", "invalid_field")
    assert "`temperature`" in str(bad.value.api_message)
    body: Any = bad.value.body
    assert body["type"] == "error"
    assert bad.value.request_id == body["request_id"]
    with pytest.raises(NotFoundError) as unknown:
        await client.messages.create(**asked("hi") | {"model": "claude-9"})
    assert (unknown.value.type, unknown.value.error_code) == ("not_found_error", "model_not_found")
    with pytest.raises(ContentTooLargeError) as large:
        await client.messages.create(**asked("x" * MAX_BODY))
    assert large.value.type == "request_too_large"
    for stream in (False, True):
        with pytest.raises(InternalServerError) as failed:
            await client.messages.create(**asked("[[fail]]"), stream=stream)
        assert (failed.value.type, failed.value.error_code) == ("api_error", "engine_failed")
        assert failed.value.request_id
    with pytest.raises(BadRequestError) as served:
        await client.messages.create(**asked("hi", tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    assert "web_search_20250305" in str(served.value.api_message)


async def test_no_room(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(max_buffered_requests=2, tenant_share=0.5)
    async with balancer.anthropic() as client, balancer.http() as http:
        waiting = asyncio.create_task(http.post(MESSAGES, json=asked("first")))
        await wait_until(balancer.num_waiting)
        with pytest.raises(RateLimitError) as mine:
            await client.messages.create(**asked("second"))
        assert (mine.value.type, mine.value.error_code) == ("rate_limit_error", "tenant_buffer_full")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await wait_until(balancer.is_idle)
    balancer = await new_balancer(max_buffered_requests=1)
    async with balancer.anthropic() as client, balancer.http() as http:
        waiting = asyncio.create_task(http.post(MESSAGES, json=asked("first")))
        await wait_until(balancer.num_waiting)
        with pytest.raises(ServiceUnavailableError) as full:
            await client.messages.create(**asked("second"), stream=True)
        assert (full.value.type, full.value.error_code) == ("overloaded_error", "buffer_full")
        assert int(full.value.response.headers["retry-after"]) > 0
        assert full.value.response.headers["x-should-retry"] == "true"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await wait_until(balancer.is_idle)


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status", "kind"),
    [
        ("GET", MESSAGES, {}, b"", 405, "invalid_request_error"),
        ("POST", f"{MESSAGES}/batches", {}, b"{}", 404, "not_found_error"),
        ("POST", f"/v1{MESSAGES}", {}, b"{}", 404, "not_found_error"),
        ("POST", MESSAGES, {"content-type": "text/plain"}, b"{}", 415, "invalid_request_error"),
        ("POST", MESSAGES, {"content-encoding": "gzip"}, b"{}", 415, "invalid_request_error"),
        ("POST", MESSAGES, {}, b"{", 400, "invalid_request_error"),
        ("POST", MESSAGES, {}, b'{"model": "\xff"}', 400, "invalid_request_error"),
        ("POST", MESSAGES, {}, b'{"messages": ' + b"[" * 50_000, 400, "invalid_request_error"),
        ("POST", MESSAGES, {}, b" " * (MAX_BODY + 1), 413, "request_too_large"),
        ("POST", f"{MESSAGES}/count_tokens", {}, b"{}", 400, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("service", ["inference", "openai"])
async def test_whatever_goes_wrong_here_is_told_as_anthropic_does(
    balancer: HttpBalancer, service: str, method: str, path: str, headers: dict[str, str], content: bytes, status: int,
    kind: str,
) -> None:  # fmt: skip
    async with balancer.http(service) as http:
        answer = await http.request(method, path, headers=headers, content=content)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert list(body) == ["type", "error", "request_id"]
        assert (body["type"], body["error"]["type"]) == ("error", kind)
        assert body["error"]["message"]
        assert answer.headers["request-id"] == body["request_id"]
        if path.startswith("/v1/v1"):
            assert "must not end in /v1" in body["error"]["message"]
        others = await http.post("/v1/chat/completions", content=b"{")
        assert list(others.json()) == ["error"], "OpenAI's routes keep OpenAI's errors"
        assert "request-id" not in others.headers


async def test_headers_of_anthropics_clients_change_nothing(client: AsyncAnthropic, balancer: HttpBalancer) -> None:
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "secret", "anthropic-beta": "a,b", "authorization": "x"}
    async with balancer.http() as http:
        for extra in ({}, headers):
            answer = await http.post(f"{MESSAGES}?beta=true", json=asked("[[say=ok]]"), headers=extra)
            assert answer.json()["content"] == [{"type": "text", "text": "ok"}]
            assert answer.headers["request-id"] == answer.headers["x-request-id"]
            assert answer.headers["x-paddler-agent"] == "test"


async def test_an_error_within_a_stream_is_raised(new_balancer: NewBalancer, fleet: Fleet) -> None:
    balancer = await new_balancer()
    await fleet.agent(slots=1, step_s=0.01)
    async with balancer.anthropic() as client:
        stream: Any = await client.messages.create(**asked("[[tokens=5000]]") | {"max_tokens": 5000}, stream=True)
        await anext(stream)
        balancer.gateway.stop_accepting()
        with pytest.raises(APIStatusError, match="stopping") as failed:
            async for _ in stream:
                pass
        assert (failed.value.type, failed.value.error_code) == ("overloaded_error", "shutting_down")
        assert failed.value.request_id


async def test_who_waits_hears_of_it_and_is_answered(balancer: HttpBalancer, store: Store) -> None:
    """Comments that the client passes over, and then the message."""
    async with balancer.anthropic() as client:
        stream: Any = await client.messages.create(**asked("hi"), stream=True)
        agent = HandAgent(store)
        await agent.register()
        request = await agent.take()
        await request.emit(Prefilled(5, 2))
        await request.say("hello")
        await request.finish()
        events = [event async for event in stream]
        await agent.leave()
    assert [event.type for event in events][:2] == ["message_start", "content_block_start"]
    assert events[0].message.usage.input_tokens == 3
    assert events[-1].type == "message_stop"


async def test_closing_a_stream_frees_its_slot(balancer: HttpBalancer, fleet: Fleet) -> None:
    await fleet.agent(engine=ScriptedEngine(slots=1, step_s=0.01))
    async with balancer.anthropic() as client:
        async with client.messages.stream(**asked("[[tokens=5000]]") | {"max_tokens": 5000}) as stream:
            await anext(stream)
        await wait_until(fleet.is_idle)
        assert (await client.messages.create(**asked("[[say=ok]]"))).content


def whole_events(body: str) -> list[str]:
    return [event + "\n\n" for event in body.split("\n\n")[:-1]]


async def test_any_balancer_goes_on_from_any_event(
    client: AsyncAnthropic, balancer: HttpBalancer, new_balancer: NewBalancer
) -> None:
    """In the middle of a thought, a text, an input: byte for byte what one stream says."""
    other = await new_balancer()
    text = f"[[say=hm\n</think>\n\nI look.\n{CALL}\n{CALL}]][[think]]"
    async with balancer.http() as http:
        response = await http.post(MESSAGES, json=asked(text, stream=True, tools=TOOLS))
    request_id = response.headers["request-id"]
    events = whole_events(response.text)
    ids = {at: event.rpartition("id: ")[2].strip() for at, event in enumerate(events) if "\nid: " in event}
    assert len(ids) > 4
    async with other.http() as http:

        async def rest(event_id: str) -> list[str]:
            headers = {"last-event-id": event_id}
            answer: httpx.Response = await http.get(f"/v1/requests/{request_id}/stream", headers=headers)
            return whole_events(answer.text)

        tails = await asyncio.gather(*(rest(event_id) for event_id in ids.values()))
        assert await rest("") == events
        status = (await http.get(f"/v1/requests/{request_id}")).json()["response"]
        unknown = await http.get("/v1/requests/default.xxxxxxxxxxxxxxxxxxxxxx/stream")
    for at, tail in zip(ids, tails, strict=True):
        assert tail == events[at + 1 :], at
    assert [block["type"] for block in status["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert (status["id"], status["stop_reason"]) == (f"msg_{request_id}", "tool_use")
    assert list(unknown.json()) == ["error"]


async def test_an_answer_goes_on_behind_what_it_has_begun_with(client: AsyncAnthropic, balancer: HttpBalancer) -> None:
    """It is a part of the prompt, and so of what is counted, and no part of the answer."""
    turns: Any = [*asking("A poem."), {"role": "assistant", "content": "[[say=Roses]]"}]
    message = await client.messages.create(**asked("") | {"messages": turns})
    assert message.content[0].to_dict()["text"] == "Roses"
    count = await client.messages.count_tokens(model="default", messages=turns)
    assert count.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    assert count.input_tokens > (await client.messages.count_tokens(model="default", messages=turns[:1])).input_tokens


async def test_one_key_is_one_message(client: AsyncAnthropic) -> None:
    headers = {"idempotency-key": "k"}
    first = await client.messages.create(**asked("hi"), extra_headers=headers)
    assert (await client.messages.create(**asked("hi"), extra_headers=headers)).to_dict() == first.to_dict()
    with pytest.raises(APIStatusError) as other:
        await client.messages.create(**asked("ho"), extra_headers=headers)
    assert (other.value.status_code, other.value.error_code) == (422, "idempotency_mismatch")


async def test_a_request_that_changes_hands_is_one_message(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.anthropic() as client:
        fields: Any = asked("x", stop_sequences=["!"])
        task = asyncio.create_task(client.messages.create(**fields))
        request = await agent.take()
        await request.emit(Prefilled(5, 0))
        await request.say("hel")
        await request.emit(Prefilled(5, 5))
        await request.say("lo")
        await request._settle(Finished(FinishReason.STOP, stop="!"), Outcome.DONE)
        message = await task
    assert (message.content[0].to_dict()["text"], message.stop_sequence) == ("hello", "!")


async def test_an_end_of_an_older_agent_names_no_stop_sequence(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.anthropic() as client:
        task = asyncio.create_task(client.messages.create(**asked("x", stop_sequences=["!"])))
        request = await agent.take()
        await request.say("hello")
        await request.finish()
        message = await task
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)


async def test_chat_completions_are_none_of_this(client: AsyncAnthropic, balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        answer = await http.post("/v1/chat/completions", json=chat("[[say=ok]]"))
        assert answer.json()["object"] == "chat.completion"
        assert "request-id" not in answer.headers
