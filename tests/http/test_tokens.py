"""`/tokenize`, `/detokenize` and `/apply-template`: as users of llama.cpp's server call them, on real agent loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer, NewAgent, chat
from starter_engine import starter_engine

from api.openai.texts import RUN, answer_chunks
from api.openai.token_routes import DETOKENIZE_PATHS, TEMPLATE_PATHS, TOKENIZE_PATHS, read_template_call
from paddler.errors import EngineFailed, InvalidField
from paddler.jobs import fleet_view
from paddler.payload import MAX_QUESTION_BYTES
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.wire.agent import Detokenize, Tokenize
from paddler.wire.answers import Tokenized, encode_answer
from paddler.wire.balancer import Answered, FinishReason, Usage

pytestmark = pytest.mark.anyio

TOKENIZE, DETOKENIZE, TEMPLATE = TOKENIZE_PATHS[0], DETOKENIZE_PATHS[0], TEMPLATE_PATHS[0]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see a new agent at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def http(balancer: HttpBalancer) -> AsyncIterator[httpx.AsyncClient]:
    async with balancer.http() as http:
        yield http


async def told(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["x-paddler-agent"] == "test"
    return response.json()


def test_a_piece_that_is_no_text_is_shown_by_its_bytes() -> None:
    shown = b"".join(answer_chunks(Tokenized((1, 2), (b"a", b"\xc3"))))
    assert json.loads(shown) == {"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [0xC3]}]}


@pytest.mark.parametrize("pieces", [None, (b"piece",) * (2 * RUN + 1)])
def test_many_tokens_are_shown_a_run_at_a_time(pieces: tuple[bytes, ...] | None) -> None:
    """Each is made when the one before it has been sent, and other streams have had their turn."""
    tokens = tuple(range(2 * RUN + 1))
    chunks = list(answer_chunks(Tokenized(tokens, pieces)))
    assert max(map(len, chunks)) < len(b"".join(chunks)) * 0.6
    shown = json.loads(b"".join(chunks))["tokens"]
    assert shown == (list(tokens) if pieces is None else [{"id": one, "piece": "piece"} for one in tokens])


def test_pieces_that_are_not_those_of_the_tokens_are_an_error() -> None:
    with pytest.raises(EngineFailed, match="2 tokens have 1 pieces"):
        list(answer_chunks(Tokenized((1, 2), (b"a",))))


def test_none_are_shown_too() -> None:
    assert b"".join(answer_chunks(Tokenized((), ()))) == b'{"tokens":[]}'


def test_what_is_templated_is_a_chat_request() -> None:
    body = b'{"messages":[{"role":"user","content":"x"}],"temperature":0.5,"chat_template_kwargs":{"a":1}}'
    model, question = read_template_call(body)
    assert model == "default"
    assert question.request.template_kwargs == '{"a":1}'
    assert question.request.add_generation_prompt
    with pytest.raises(InvalidField, match="messages"):
        read_template_call(b"{}")


async def test_the_model_of_an_agent_answers(http: httpx.AsyncClient, fleet: Fleet) -> None:
    await fleet.agent(engine=starter_engine())
    text = "Hello <|im_end|> world"
    plain = await told(http, TOKENIZE, {"content": text})
    assert all(isinstance(token, int) for token in plain["tokens"])
    pieces = await told(http, TOKENIZE, {"content": text, "with_pieces": True})
    assert [one["id"] for one in pieces["tokens"]] == plain["tokens"]
    assert "<|im_end|>" in [one["piece"] for one in pieces["tokens"]]
    unparsed = await told(http, TOKENIZE, {"content": text, "parse_special": False, "add_special": True})
    assert len(unparsed["tokens"]) > len(plain["tokens"])
    assert await told(http, DETOKENIZE, {"tokens": plain["tokens"]}) == {"content": text}

    made = await told(http, TEMPLATE, {"messages": TALK})
    assert made["prompt"].endswith("<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n")
    shorter = await told(http, TEMPLATE, {"messages": TALK, "add_generation_prompt": False})
    assert made["prompt"] == shorter["prompt"] + "<|im_start|>assistant\n"
    assert "look" in (await told(http, TEMPLATE, {"messages": TALK, "tools": [TOOL]}))["prompt"]

    # The prompt of a chat completion is what `/apply-template` shows.
    asked = {"model": "default", "messages": TALK, "max_tokens": 1}
    completion = (await http.post("/v1/chat/completions", json=asked)).json()
    tokens = (await told(http, TOKENIZE, {"content": made["prompt"]}))["tokens"]
    assert completion["usage"]["prompt_tokens"] == len(tokens)


@pytest.mark.parametrize(
    ("paths", "body"),
    [
        (TOKENIZE_PATHS, {"content": "a"}),
        (DETOKENIZE_PATHS, {"tokens": [1]}),
        (TEMPLATE_PATHS, {"messages": TALK, "model": "scripted"}),
    ],
)
async def test_each_path_on_each_service(
    balancer: HttpBalancer, fleet: Fleet, paths: list[str], body: dict[str, Any]
) -> None:
    await fleet.agent()
    for service in ("inference", "openai"):
        async with balancer.http(service) as http:
            first, second = [await told(http, path, body) for path in paths]
            assert first == second


async def test_it_waits_for_an_agent_and_is_shown_by_its_id(http: httpx.AsyncClient, new_agent: NewAgent) -> None:
    asking = asyncio.create_task(http.post(TOKENIZE, json={"content": "a", "with_pieces": True}))
    agent = await new_agent(abilities="generate tokenize")
    request = await agent.take()
    assert request.payload == Tokenize(text="a", with_pieces=True)
    await request.emit(Answered(encode_answer(Tokenized((7,), (b"a",)))))
    await request.finish(FinishReason.STOP, Usage())
    response = await asking
    assert response.json() == {"tokens": [{"id": 7, "piece": "a"}]}
    assert response.headers["x-request-id"] == request.request_id
    shown = (await http.get(f"/v1/requests/{request.request_id}")).json()
    assert (shown["state"], shown["response"]) == ("done", response.json())
    stream = await http.get(f"/v1/requests/{request.request_id}/stream")
    assert (stream.status_code, stream.json()["error"]["param"]) == (400, "id")


async def test_a_large_answer_is_sent_in_pieces(http: httpx.AsyncClient, new_agent: NewAgent) -> None:
    agent = await new_agent(abilities="tokenize")
    asking = asyncio.create_task(http.post(TOKENIZE, json={"content": "x", "with_pieces": True}))
    request = await agent.take()
    num = 20_000
    await request.emit(Answered(encode_answer(Tokenized(tuple(range(num)), (b"piece",) * num))))
    await request.finish(FinishReason.STOP, Usage())
    response = await asking
    assert response.json()["tokens"][-1] == {"id": num - 1, "piece": "piece"}
    assert "content-length" not in response.headers
    assert response.headers["x-paddler-agent"] == "hand"
    shown = await http.get(f"/v1/requests/{request.request_id}")
    assert shown.json()["response"] == response.json()


async def test_who_leaves_cancels_it(balancer: HttpBalancer, http: httpx.AsyncClient) -> None:
    asking = asyncio.create_task(http.post(DETOKENIZE, json={"tokens": [1]}))
    await wait_until(balancer.num_waiting)
    asking.cancel()
    await wait_until(balancer.is_idle)


async def test_an_answer_to_something_else_is_an_error_and_no_answer(
    http: httpx.AsyncClient, new_agent: NewAgent
) -> None:
    agent = await new_agent(abilities="tokenize")
    for body in (encode_answer(Tokenized((7,))), b"\xc1"):
        asking = asyncio.create_task(http.post(DETOKENIZE, json={"tokens": [1]}))
        request = await agent.take()
        assert request.payload == Detokenize(tokens=(1,))
        await request.emit(Answered(body))
        await request.finish(FinishReason.STOP, Usage())
        response = await asking
        assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_failed")


async def test_an_older_agent_is_not_asked(http: httpx.AsyncClient, new_agent: NewAgent) -> None:
    await new_agent(abilities="generate embed")
    response = await http.post(TOKENIZE, json={"content": "a"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")
    assert "not all agents" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (TOKENIZE, {}, 400, "content"),
        (TOKENIZE, {"content": ["a"]}, 400, "content"),
        (TOKENIZE, {"content": "a", "add_specials": True}, 400, "add_specials"),
        (TOKENIZE, {"content": "a", "model": "nobody"}, 404, "model"),
        (DETOKENIZE, {"tokens": "a"}, 400, "tokens"),
        (DETOKENIZE, {"tokens": [1, -1]}, 400, "tokens[1]"),
        (TEMPLATE, {"messages": []}, 400, "messages"),
        (TEMPLATE, {"messages": TALK, "audio": {}}, 400, "audio"),
        (TEMPLATE, chat(chat_template_kwargs={"messages": 1}), 400, "chat_template_kwargs.messages"),
    ],
)
async def test_what_is_wrong_is_named(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    response = await http.post(path, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


def test_a_question_may_be_larger_than_a_context_but_not_any_size() -> None:
    assert MAX_QUESTION_BYTES < 32 * 1024 * 1024, "the default of --max-body"
