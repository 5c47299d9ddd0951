"""`/v1/responses`: stored, retrieved, gone on with, cancelled and deleted, on any balancer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer
from response_calls import PATH, asked, create, events_of, replay, retrieve, text_of

from paddler.errors import ContextExceeded, EngineFailed
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Message
from paddler.wire.balancer import FinishReason, Prefilled, TextFormat

pytestmark = pytest.mark.anyio

UNKNOWN = "resp_default." + "x" * 22


def is_error(answer: httpx.Response, status: int, param: str) -> bool:
    return (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def posted(http: httpx.AsyncClient, agent: HandAgent, *texts: str, **fields: Any) -> dict[str, Any]:
    """A whole answer of the agent."""
    posting = asyncio.create_task(create(http, **fields))
    request = await agent.take()
    for text in texts:
        await request.say(text)
    await request.finish()
    return await posting


async def test_a_whole_answer(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        response = await posted(http, agent, "hel", "lo", input="hi", metadata={"k": "v"}, max_output_tokens=9)
        assert (response["object"], response["status"], text_of(response)) == ("response", "completed", "hello")
        assert (response["metadata"], response["max_output_tokens"], response["error"]) == ({"k": "v"}, 9, None)
        assert response["usage"]["total_tokens"] == 7
        assert await retrieve(http, response["id"]) == response
        [item] = (await http.get(f"{PATH}/{response['id']}/input_items")).json()["data"]
        assert (item["role"], item["content"]) == ("user", [{"type": "input_text", "text": "hi"}])


async def test_a_response_in_the_background(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    """It is seen while it waits, while it runs and afterwards, on a balancer that has not taken it."""
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        response = await create(http, background=True)
        assert (response["status"], response["background"], response["output"]) == ("queued", True, [])
        assert await retrieve(elsewhere, response["id"]) == response
        agent = await new_agent()
        request = await agent.take()
        await request.say("hel")
        running = await retrieve(elsewhere, response["id"])
        assert (running["status"], text_of(running), running["usage"]) == ("in_progress", "hel", None)
        await request.say("lo")
        await request.finish()
        done = await retrieve(elsewhere, response["id"])
        assert (done["status"], text_of(done), done["created_at"]) == ("completed", "hello", response["created_at"])


async def test_what_ended_while_no_balancer_was_there(new_balancer: NewBalancer, agent: HandAgent) -> None:
    """Nobody has to write anything when a response ends: its journal is its output."""
    balancer = await new_balancer()
    async with balancer.http() as http:
        response = await create(http, background=True, stream=False)
    request = await agent.take()
    await balancer.gateway.close()
    await request.say("hello")
    await request.finish()
    async with (await new_balancer()).http() as http:
        assert text_of(await retrieve(http, response["id"])) == "hello"
        assert (await replay(http, response["id"]))[-1]["type"] == "response.completed"
        ttl_s = await agent.pool.redis.ttl(agent.pool.keys.journal(request.request_id))
        assert ttl_s > 86_000, "for as long as the response is stored"


async def test_the_client_of_a_background_stream_has_the_id_at_once(
    balancer: HttpBalancer, new_agent: NewAgent
) -> None:
    async with balancer.http() as http:
        sending = http.build_request("POST", PATH, json=asked(background=True, stream=True))
        answer = await http.send(sending, stream=True)
        lines = answer.aiter_lines()
        text = "".join([await anext(lines) + "\n" for _ in range(6)])
        created, queued = events_of(text)
        assert [one["type"] for one in (created, queued)] == ["response.created", "response.queued"]
        await answer.aclose()
        agent = await new_agent()
        request = await agent.take()
        await request.say("hello")
        await request.finish()
        events = await replay(http, created["response"]["id"])
        assert events[:2] == [created, queued]
        assert text_of(events[-1]["response"]) == "hello"


async def test_a_stream_is_gone_on_with_behind_any_event(new_balancer: NewBalancer, agent: HandAgent) -> None:
    """By the number of an event, while it runs and afterwards; each event comes once and is the same everywhere."""
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        posting = asyncio.create_task(http.post(PATH, json=asked(background=True, stream=True)))
        request = await agent.take()
        await request.emit(Prefilled(5, 1, TextFormat("hermes", "think", True)))
        for word in ("hm", "</thi", "nk> one ", '<tool_call>\n{"name": "f", "argu', 'ments": {}}\n', "</tool_call>"):
            await request.say(word)
        response_id = f"resp_{request.request_id}"
        following = [
            asyncio.create_task(replay(elsewhere, response_id, starting_after=number)) for number in (-1 + 1, 9)
        ]
        await wait_until(lambda: other.num_tasks() == 2)
        await request.finish()
        whole = events_of((await posting).text)
        assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
        assert [await one for one in following] == [whole[1:], whole[10:]]
        for number in range(len(whole)):
            assert await replay(elsewhere, response_id, starting_after=number) == whole[number + 1 :]
        assert await replay(http, response_id) == whole


async def test_a_stream_is_gone_on_with_behind_any_id(new_balancer: NewBalancer, agent: HandAgent) -> None:
    """As with every stream, also by `Last-Event-ID` and on the route of requests."""
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        posting = asyncio.create_task(http.post(PATH, json=asked(stream=True)))
        request = await agent.take()
        for word in ("one ", "zwei ", "drei \u2603"):
            await request.say(word)
        await request.finish()
        text = (await posting).text
        events = [event + "\n\n" for event in text.split("\n\n")[:-1]]
        ids = {at: event.rpartition("id: ")[2].strip() for at, event in enumerate(events) if "\nid: " in event}
        assert len(ids) == 3
        response_id = f"resp_{request.request_id}"
        for at, event_id in ids.items():
            for url in (f"{PATH}/{response_id}?stream=true", f"/v1/requests/{request.request_id}/stream"):
                answer = await elsewhere.get(url, headers={"Last-Event-ID": event_id})
                rest = "".join(line for line in answer.text.splitlines(True) if not line.startswith(": x-paddler"))
                assert rest == "".join(events[at + 1 :]), (event_id, url)
        assert (await http.get(f"/v1/requests/{request.request_id}/stream")).text == text
        status = (await http.get(f"/v1/requests/{request.request_id}")).json()
        assert status["response"] == await retrieve(http, response_id)


async def test_a_conversation_goes_on(new_balancer: NewBalancer, agent: HandAgent) -> None:
    """Its turns are put together from what is stored; the instructions of earlier turns are not part of it."""
    balancer, other = await new_balancer(), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        first = await posted(http, agent, "Hello Ada.", input="I am Ada.", instructions="Be kind.")
        second = await posted(elsewhere, agent, "Ada.", input="My name?", previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
        posting = asyncio.create_task(create(http, "Sure?", previous_response_id=second["id"], instructions="Brief."))
        request = await agent.take()
        assert request.asked.messages == (
            Message("system", "Brief."),
            Message("user", "I am Ada."),
            Message("assistant", "Hello Ada."),
            Message("user", "My name?"),
            Message("assistant", "Ada."),
            Message("user", "Sure?"),
        )
        await request.finish()
        third = await posting
        data = (await http.get(f"{PATH}/{third['id']}/input_items")).json()["data"]
        assert [item["content"][0]["text"] for item in data] == ["Sure?"]


async def test_a_call_and_its_result_by_the_id_of_the_response(balancer: HttpBalancer, agent: HandAgent) -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    async with balancer.http() as http:
        posting = asyncio.create_task(create(http, "What is there?", tools=[tool]))
        request = await agent.take()
        await request.emit(Prefilled(5, 1, TextFormat("hermes")))
        await request.say('<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>')
        await request.finish()
        first = await posting
        [call] = first["output"]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "a fox"}
        wrong = await http.post(PATH, json=asked([result]))
        assert is_error(wrong, 400, "input[0].call_id")
        posting = asyncio.create_task(create(http, [result], previous_response_id=first["id"], tools=[tool]))
        request = await agent.take()
        assert request.asked.messages is not None
        user, turn, told = request.asked.messages
        assert (user.content, told.content, told.tool_call_id) == ("What is there?", "a fox", call["call_id"])
        assert [(one.id, one.name, one.arguments) for one in turn.tool_calls] == [(call["call_id"], "look", "{}")]
        await request.finish()
        await posting


async def test_items_by_their_ids(balancer: HttpBalancer, agent: HandAgent) -> None:
    """As clients send them that rely on what is stored: what was put out, and what was put in."""
    async with balancer.http() as http:
        first = await posted(http, agent, "Hello Ada.", input="I am Ada.")
        [said] = (await http.get(f"{PATH}/{first['id']}/input_items")).json()["data"]
        ids = [said["id"], first["output"][0]["id"]]
        references = [{"type": "item_reference", "id": item_id} for item_id in ids]
        posting = asyncio.create_task(create(http, [*references, {"role": "user", "content": "My name?"}]))
        request = await agent.take()
        assert request.asked.messages == (
            Message("user", "I am Ada."),
            Message("assistant", "Hello Ada."),
            Message("user", "My name?"),
        )
        await request.finish()
        second = await posting
        await http.delete(f"{PATH}/{first['id']}")
        data = (await http.get(f"{PATH}/{second['id']}/input_items")).json()["data"]
        assert [item["content"][0]["text"] for item in data] == ["My name?", "Hello Ada.", "I am Ada."]
        for item_id in (ids[0], ids[1], "msg_1", f"msg_{UNKNOWN.removeprefix('resp_')}_0"):
            answer = await http.post(PATH, json=asked([{"type": "item_reference", "id": item_id}]))
            assert is_error(answer, 400, "input[0].id"), item_id


async def test_turns_that_cannot_be_gone_on_with(balancer: HttpBalancer, agent: HandAgent) -> None:
    async def refused(response_id: str) -> httpx.Response:
        return await http.post(PATH, json=asked(previous_response_id=response_id))

    async with balancer.http() as http:
        for response_id in (UNKNOWN, "nonsense", UNKNOWN.removeprefix("resp_")):
            assert is_error(await refused(response_id), 400, "previous_response_id"), response_id
        running = await create(http, background=True)
        assert "not ended" in (await refused(running["id"])).json()["error"]["message"]
        await (await agent.take()).fail(EngineFailed("no"))
        assert "failed" in (await refused(running["id"])).json()["error"]["message"]
        first = await posted(http, agent, "one")
        second = await posted(http, agent, "two", previous_response_id=first["id"])
        await http.delete(f"{PATH}/{first['id']}")
        assert first["id"] in (await refused(second["id"])).json()["error"]["message"]


async def test_what_is_not_stored_cannot_be_read(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        response = await posted(http, agent, "hello", store=False)
        assert response["store"] is False
        for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/input_items")):
            answer = await http.request(method, f"{PATH}/{response['id']}{path}")
            assert is_error(answer, 404, "response_id"), path
            answer = await http.request(method, f"{PATH}/{UNKNOWN}{path}")
            assert is_error(answer, 404, "response_id"), path
            answer = await http.request(method, f"{PATH}/nonsense{path}")
            assert is_error(answer, 400, "response_id"), path
        assert await agent.pool.redis.exists(agent.pool.keys.kept()) == 0


async def test_deleting(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        response = await posted(http, agent, "hello")
        answer = await http.delete(f"{PATH}/{response['id']}")
        assert answer.json() == {"id": response["id"], "object": "response", "deleted": True}
        assert is_error(await http.get(f"{PATH}/{response['id']}"), 404, "response_id")
        request_id = response["id"].removeprefix("resp_")
        assert (await http.get(f"/v1/requests/{request_id}")).status_code == 404, "its text is gone too"
        running = await create(http, background=True)
        request = await agent.take()
        assert (await http.delete(f"{PATH}/{running['id']}")).status_code == 200
        await request.cancelled()
        assert is_error(await http.get(f"{PATH}/{running['id']}"), 404, "response_id")


async def test_cancelling_what_waits_and_what_runs(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        running = await create(http, background=True)
        request = await agent.take()
        await request.say("hel")
        waiting = await create(http, background=True)
        for _ in range(2):
            cancelled = (await http.post(f"{PATH}/{waiting['id']}/cancel")).json()
            assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
        cancelled = (await http.post(f"{PATH}/{running['id']}/cancel")).json()
        assert (cancelled["status"], text_of(cancelled)) == ("cancelled", "hel")
        await request.cancelled()
        assert (await retrieve(http, running["id"]))["output"][0]["status"] == "incomplete"
        for response_id in (waiting["id"], running["id"]):
            events = await replay(http, response_id)
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.incomplete", "cancelled")
        done = await posted(http, agent, "hello")
        assert (await http.post(f"{PATH}/{done['id']}/cancel")).json() == done


async def test_a_failure_has_its_status_or_is_told_of_the_response(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        for stream in (False, True):
            posting = asyncio.create_task(http.post(PATH, json=asked(stream=stream)))
            await (await agent.take()).fail(ContextExceeded("too long", param="messages"))
            assert is_error(await posting, 400, "input")
        response = await create(http, background=True)
        request = await agent.take()
        await request.say("hel")
        await request.fail(EngineFailed("it broke"))
        failed = await retrieve(http, response["id"])
        assert (failed["status"], failed["error"]) == ("failed", {"code": "server_error", "message": "it broke"})
        last = (await replay(http, response["id"]))[-1]
        assert (last["type"], last["response"]) == ("response.failed", failed)


async def test_a_failure_within_a_stream(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        posting = asyncio.create_task(http.post(PATH, json=asked(stream=True)))
        request = await agent.take()
        await request.say("hel")
        await request.fail(EngineFailed("it broke"))
        events = events_of((await posting).text)
        assert events[-1]["type"] == "response.failed"
        assert await replay(http, f"resp_{request.request_id}") == events


async def test_a_balancer_that_stops_says_so_and_another_goes_on(new_balancer: NewBalancer, agent: HandAgent) -> None:
    """Its error is no event of the response: the number it has is that of the event before it."""
    balancer, other = await new_balancer(cancel_on_stop=False), await new_balancer()
    async with balancer.http() as http, other.http() as elsewhere:
        posting = asyncio.create_task(http.post(PATH, json=asked(stream=True)))
        request = await agent.take()
        await request.say("hel")
        await wait_until(lambda: balancer.num_tasks() == 1)
        await asyncio.sleep(0.05)
        balancer.gateway.stop_accepting()
        *events, error = events_of((await posting).text)
        assert (error["type"], error["code"]) == ("error", "shutting_down")
        assert error["sequence_number"] == events[-1]["sequence_number"]
        following = asyncio.create_task(
            replay(elsewhere, f"resp_{request.request_id}", starting_after=error["sequence_number"])
        )
        await wait_until(lambda: other.num_tasks() == 1)
        await request.say("lo")
        await request.finish()
        events += await following
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert text_of(events[-1]["response"]) == "hello"


async def test_who_leaves_cancels_unless_it_is_in_the_background(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        posting = asyncio.create_task(http.post(PATH, json=asked(stream=True)))
        request = await agent.take()
        posting.cancel()
        await request.cancelled()
        assert (await retrieve(http, f"resp_{request.request_id}"))["status"] == "cancelled"


async def test_an_idempotency_key_is_one_response(balancer: HttpBalancer, agent: HandAgent) -> None:
    headers = {"Idempotency-Key": "k"}
    async with balancer.http() as http:
        first = (await http.post(PATH, json=asked(background=True), headers=headers)).json()
        request = await agent.take()
        await request.say("hello")
        await request.finish()
        again = (await http.post(PATH, json=asked(background=True), headers=headers)).json()
        assert (again["id"], again["status"], again["created_at"]) == (first["id"], "completed", first["created_at"])


async def test_an_answer_that_was_cut(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http() as http:
        posting = asyncio.create_task(create(http))
        request = await agent.take()
        await request.say("hel")
        await request.finish(FinishReason.LENGTH)
        response = await posting
        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=maybe", "stream"),
        ("starting_after=3", "starting_after"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("stream=true&include_obfuscation=true", "include_obfuscation"),
        ("streem=true", "streem"),
    ],
)
async def test_parameters_that_are_none(balancer: HttpBalancer, agent: HandAgent, query: str, param: str) -> None:
    async with balancer.http() as http:
        response = await posted(http, agent, "hello")
        assert is_error(await http.get(f"{PATH}/{response['id']}?{query}"), 400, param)
        answer = await http.get(f"{PATH}/{response['id']}?stream=false&include[]=reasoning.encrypted_content")
        assert answer.status_code == 200


async def test_input_items_in_pages(balancer: HttpBalancer, agent: HandAgent) -> None:
    items: list[dict[str, Any]] = [{"role": "user", "content": f"number {number}"} for number in range(5)]
    items[2] = {"type": "message", "id": "mine", "role": "assistant", "content": "said"}
    async with balancer.http() as http:
        response = await posted(http, agent, "hello", input=items)
        url = f"{PATH}/{response['id']}/input_items"
        first = (await http.get(url, params={"order": "asc", "limit": 3})).json()
        assert [item["content"][0]["text"] for item in first["data"]] == ["number 0", "number 1", "said"]
        assert (first["has_more"], first["last_id"], first["data"][2]["content"][0]["type"]) == (
            True,
            "mine",
            "output_text",
        )
        rest = (await http.get(url, params={"order": "asc", "after": first["last_id"]})).json()
        assert ([item["content"][0]["text"] for item in rest["data"]], rest["has_more"]) == (
            ["number 3", "number 4"],
            False,
        )
        latest = (await http.get(url)).json()
        assert latest["data"] == [*first["data"], *rest["data"]][::-1], "the latest first, unless it is said"
        for query, param in (
            ({"limit": 0}, "limit"),
            ({"order": "up"}, "order"),
            ({"after": "x"}, "after"),
            ({"b": 1}, "b"),
        ):
            assert is_error(await http.get(url, params=query), 400, param)
