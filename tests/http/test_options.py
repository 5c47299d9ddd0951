"""How a client says how its request is to be treated, and what it is told about it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer, chat, read_events

from api import event_stream
from api.connection import Outgoing
from paddler.testing.waiting import wait_until
from paddler.wire.answers import Tokenized, encode_answer
from paddler.wire.balancer import Answered, Prefilled, Usage

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-Timeout", "0"),
        ("X-Request-Timeout", "86400001"),
        ("X-Request-Timeout", "-1"),
        ("X-Request-Timeout", "1.5"),
        ("X-Request-Timeout", "soon"),
        ("X-Request-Class", "urgent"),
        ("X-Session-ID", "x" * 1025),
        ("X-Conversation-Id", "x" * 1025),
        ("X-Request-Timeout", ""),
        ("X-Request-Class", ""),
        ("Last-Event-ID", "default.abc:7"),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "x" * 256),
        ("Idempotency-Key", "\u00e9"),
    ],
)
async def test_a_header_out_of_range_is_named(balancer: HttpBalancer, name: str, value: str) -> None:
    async with balancer.http() as http:
        headers = [(name.encode(), value.encode("latin-1"))]
        answer = await http.post(CHAT, json=chat(), headers=headers)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == (name, "invalid_field")
        assert name in error["message"]
    assert await balancer.is_idle()


async def test_a_hint_that_is_not_needed_is_checked_too(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        headers = {"X-Session-ID": "mine", "X-Conversation-Id": "x" * 1025}
        answer = await http.post(CHAT, json=chat(prompt_cache_key="key"), headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Conversation-Id")


async def test_the_start_deadline_of_one_request(balancer: HttpBalancer) -> None:
    """The balancer's own is ten seconds."""
    async with balancer.http() as http:
        answer = await http.post(CHAT, json=chat(), headers={"X-Request-Timeout": "150"}, timeout=5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "start_timeout")


async def test_the_class_decides_who_is_served_first(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    async with balancer.http() as http:
        posts: list[asyncio.Task[httpx.Response]] = []
        for number, name in enumerate(("batch", "normal", "interactive"), 1):
            post = http.post(CHAT, json=chat(name, service_tier="flex"), headers={"X-Request-Class": name})
            posts.append(asyncio.create_task(post))

            async def all_wait(number: int = number) -> bool:
                return await balancer.num_waiting() == number

            await wait_until(all_wait)
        agent = await new_agent()
        order: list[str] = []
        for _ in posts:
            request = await agent.take()
            assert request.asked.messages is not None
            order.append(request.asked.messages[0].content)
            await request.finish()
        assert order == ["interactive", "normal", "batch"]
        assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}


async def agents_of_a_conversation(
    balancer: HttpBalancer, agents: list[HandAgent], fields: dict[str, str], headers: dict[str, str]
) -> set[str]:
    """Which agents a conversation's requests are given, one after the other, prompts being all different."""
    seen: set[str] = set()
    async with balancer.http() as http:
        for number in range(6):
            body = chat(f"{number}{fields}{headers}", **fields)
            posting = asyncio.create_task(http.post(CHAT, json=body, headers=headers))
            takes = {asyncio.create_task(agent.take()): agent.agent_id for agent in agents}
            done, pending = await asyncio.wait(takes, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            (taken,) = done
            seen.add(takes[taken])
            await taken.result().finish()
            await posting
    return seen


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"prompt_cache_key": "k1"}, {}),
        ({}, {"X-Session-ID": "s1"}),
        ({}, {"X-Conversation-Id": "c1"}),
        ({"prompt_cache_key": "k1"}, {"X-Session-ID": "other"}),
    ],
)
async def test_hints_break_ties_between_agents(
    balancer: HttpBalancer, new_agent: NewAgent, fields: dict[str, str], headers: dict[str, str]
) -> None:
    agents = [await new_agent(slots=2) for _ in range(3)]
    assert len(await agents_of_a_conversation(balancer, agents, fields, headers)) == 1


async def test_headers_tell_which_way_a_request_went(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        for cached, cache in ((0, "miss"), (50, "partial"), (95, "hit")):
            posting = asyncio.create_task(http.post(CHAT, json=chat()))
            request = await agent.take()
            await request.finish(usage=Usage(100, 1, cached))
            told = (await posting).headers
            assert (told["x-paddler-agent"], told["x-paddler-attempt"], told["x-paddler-cache"]) == ("hand", "1", cache)

            sending = asyncio.create_task(
                http.send(http.build_request("POST", CHAT, json=chat(stream=True)), stream=True)
            )
            request = await agent.take()
            await request.emit(Prefilled(100, cached))
            await request.say("hello")
            answer = await sending
            told = answer.headers
            assert (told["x-paddler-agent"], told["x-paddler-attempt"], told["x-paddler-cache"]) == ("hand", "1", cache)
            await request.finish()
            assert not any(event.startswith(":") for event in await read_events(answer)), "headers have said it"


async def test_what_headers_could_not_say_yet_is_a_comment(
    balancer: HttpBalancer, new_agent: NewAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HOLD_BACK_S", 0.1)
    async with balancer.http() as http:
        first = asyncio.create_task(http.post(CHAT, json=chat("first")))
        await wait_until(balancer.num_waiting)
        answer = await http.send(http.build_request("POST", CHAT, json=chat("second", stream=True)), stream=True)
        assert answer.headers["x-queue-position"] == "1"
        assert "x-paddler-agent" not in answer.headers
        agent = await new_agent(slots=1)
        await (await agent.take()).finish()
        request = await agent.take()
        await request.emit(Prefilled(10, 9))
        await request.say("hello")
        await request.say("more")
        await request.finish()
        events = await read_events(answer)
        assert events[0] == ": queued position=1"
        told = [event for event in events if event.startswith(": x-")]
        assert told == [": x-paddler-agent: hand", ": x-paddler-attempt: 1", ": x-paddler-cache: hit"]
        assert events.index(told[0]) < next(at for at, event in enumerate(events) if event.startswith("data:"))
        assert (await first).status_code == 200


async def test_the_official_client_reads_a_stream_with_ids_and_comments(
    balancer: HttpBalancer, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the last id, and would take an empty line after a comment for an event."""
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.05)
    said: list[bytes] = []
    write = Outgoing.write

    async def remember(self: Outgoing, data: bytes, *, last: bool = False) -> None:
        await write(self, data, last=last)
        said.append(data)

    monkeypatch.setattr(Outgoing, "write", remember)
    async with balancer.openai() as client:
        asking = asyncio.create_task(
            client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "hi"}], stream=True, prompt_cache_key="k"
            )
        )
        request = await agent.take()
        await request.say("one ")
        stream = await asking
        texts: list[str] = []
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")
            if texts[-1] == "one ":
                await wait_until(lambda: said.count(event_stream.KEEPALIVE) >= 2)
                await request.say("two")
                await request.finish()
        assert "".join(texts) == "one two"


async def test_one_tenants_share_of_the_buffer(new_balancer: NewBalancer) -> None:
    balancer = await new_balancer(max_buffered_requests=4, tenant_share=0.5, buffered_request_timeout_ms=1500)
    async with balancer.http() as http:
        waiting = [asyncio.create_task(http.post(CHAT, json=chat())) for _ in range(2)]

        async def both_wait() -> bool:
            return await balancer.num_waiting() == 2

        await wait_until(both_wait)
        answer = await http.post(CHAT, json=chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "tenant_buffer_full")
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) >= 1
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {504}


async def test_a_wait_estimated_as_too_long_is_refused_with_when_to_come_again(
    new_balancer: NewBalancer, agent: HandAgent
) -> None:
    """The one slot is busy, 2,000 tokens wait, and the fleet computes 100 a second."""
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"rate": 100})
    balancer = await new_balancer(max_estimated_wait_ms=5_000)
    async with balancer.http() as http:
        running = asyncio.create_task(http.post(CHAT, json=chat()))
        request = await agent.take()
        waiting = asyncio.create_task(http.post(CHAT, json=chat("word " * 1600, max_tokens=1)))
        await wait_until(balancer.num_waiting)
        answer = await http.post(CHAT, json=chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "buffer_full")
        assert "--max-estimated-wait" in answer.json()["error"]["message"]
        assert 15 <= int(answer.headers["retry-after"]) <= 30
        await request.finish()
        await (await agent.take()).finish()
        assert {(await running).status_code, (await waiting).status_code} == {200}


async def test_the_same_key_twice_at_once_is_one_request(new_balancer: NewBalancer, agent: HandAgent) -> None:
    """On two balancers; both get the whole stream, and one leaving does not end it for the other."""
    first, second = await new_balancer(), await new_balancer()
    headers = {"Idempotency-Key": "k-1"}
    async with first.http() as http, second.http() as other:
        posts = [
            asyncio.create_task(client.post(CHAT, json=chat(stream=True), headers=headers))
            for client in (http, other, http)
        ]
        request = await agent.take()
        await request.say("hello ")

        async def all_follow() -> bool:
            watchers = await first.store.redis.scard(agent.pool.keys.watchers(request.request_id))
            return watchers == 2 and first.num_tasks() == 2

        await wait_until(all_follow)
        posts.pop().cancel()
        await wait_until(lambda: first.num_tasks() == 1)
        assert await first.demand() == 1
        await request.say("world")
        await request.finish()
        one, same = [await post for post in posts]
        assert one.headers["x-request-id"] == same.headers["x-request-id"] == request.request_id
        joined = [json.loads(event[6:]) for event in await read_events(one) if event.startswith("data: {")]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in joined) == "hello world"
        assert (await read_events(one))[-1] == "data: [DONE]"
        chunks = {event for event in await read_events(same) if event.startswith("data: {")}
        assert {chunk["created"] for chunk in joined} == {json.loads(event[6:])["created"] for event in chunks}

        late = await other.post(CHAT, json=chat(stream=True), headers=headers)
        assert late.headers["x-request-id"] == request.request_id, "finished, and told again"
        reordered = json.dumps(dict(reversed(chat(stream=True).items())), indent=1)
        again = await http.post(CHAT, content=reordered, headers=headers | {"content-type": "application/json"})
        assert again.headers["x-request-id"] == request.request_id
        answer = await http.post(CHAT, json=chat("something else"), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert await first.is_idle()


async def test_a_key_whose_request_failed_begins_anew(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    headers = {"Idempotency-Key": "k-2"}
    async with balancer.http() as http:
        late = await http.post(CHAT, json=chat(), headers=headers | {"X-Request-Timeout": "100"})
        assert late.status_code == 504
        agent = await new_agent()
        posting = asyncio.create_task(http.post(CHAT, json=chat(), headers=headers))
        request = await agent.take()
        await request.finish()
        assert (await posting).status_code == 200
        assert request.request_id != late.headers["x-request-id"]


async def test_a_key_belongs_to_its_route(balancer: HttpBalancer, agent: HandAgent) -> None:
    """The same body means something else elsewhere."""
    body = chat(max_tokens=8)
    headers = {"Idempotency-Key": "k-3"}
    async with balancer.http() as http:
        posting = asyncio.create_task(http.post(CHAT, json=body, headers=headers))
        request = await agent.take()
        await request.finish()
        assert (await posting).status_code == 200
        answer = await http.post("/v1/messages", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_request_error")
        assert "Idempotency-Key" in answer.json()["error"]["message"]
        again = await http.post(CHAT, json=body, headers=headers)
        assert again.headers["x-request-id"] == request.request_id


async def test_the_paths_of_a_route_share_its_keys(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    body, headers = {"content": "x"}, {"Idempotency-Key": "k-4"}
    agent = await new_agent(abilities="generate tokenize")
    async with balancer.http() as http:
        posting = asyncio.create_task(http.post("/tokenize", json=body, headers=headers))
        request = await agent.take()
        await request.emit(Answered(encode_answer(Tokenized((1,)))))
        await request.finish()
        one, same = await posting, await http.post("/v1/tokenize", json=body, headers=headers)
        assert one.json() == same.json() == {"tokens": [1]}
        assert one.headers["x-request-id"] == same.headers["x-request-id"]
