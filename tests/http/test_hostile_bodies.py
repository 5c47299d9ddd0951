"""Bodies made to break a reader, on every route that takes JSON: each is told what is wrong, and hurts nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from http_harness import HandAgent, HttpBalancer, chat
from openapi_checks import document_of

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
OTHERS = (
    *("/v1/completions", "/tokenize", "/v1/detokenize", "/apply-template", "/v1/messages", "/v1/messages/count_tokens"),
    *("/v1/responses", "/api/v1/continue_from_conversation_history", "/api/v1/continue_from_raw_prompt"),
    "/api/v1/generate_embedding_batch",
)
DEEP = 100_000
HOSTILE = {
    "nothing": b"",
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "a deep field": b'{"model":"default","metadata":' + b'{"a":' * DEEP,
    "a closed deep field": b'{"model":"default","input":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "broken UTF-8": b'{"model":"def\xc3\x28ault"}',
    "overlong UTF-8": b'{"model":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"model":"\xed\xa0\x80"}',
    "a lone surrogate": b'{"model":"\\ud800"}',
    "UTF-16": '{"model":"default"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"model":"default"}',
    "NUL bytes": b"\x00" * 1000,
    "a number out of range": b'{"model":"default","seed":1e999}',
    "no number": b'{"model":"default","temperature":NaN}',
    "a long number": b'{"model":"default","seed":' + b"9" * 50_000 + b"}",
    "a list": b"[]",
    "a text": b'"hello"',
    "two objects": b"{}{}",
}


async def post_routes(balancer: HttpBalancer) -> dict[str, str]:
    """Of the service's own document: none is forgotten that will be added. Each with the media type of its 400."""
    paths: dict[str, Any] = (await document_of(balancer)).content["paths"]
    takes_json = {
        path: next(iter(methods["post"]["responses"]["400"]["content"]))
        for path, methods in paths.items()
        if "application/json" in methods.get("post", {}).get("requestBody", {}).get("content", {})
    }
    assert takes_json.keys() >= {CHAT, *OTHERS}
    return takes_json


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_bodies(balancer: HttpBalancer, body: bytes) -> None:
    async with balancer.http() as http:
        for path, media in (await post_routes(balancer)).items():
            answer = await http.post(path, content=body, headers={"content-type": "application/json"})
            assert answer.status_code in (400, 413), (path, answer.status_code, answer.text[:200])
            assert answer.headers["content-type"].partition(";")[0] == media, path
            assert len(answer.content) < 2000, "what was sent does not come back"
    assert await balancer.is_idle()


async def test_a_body_that_is_sent_twice_over_as_parts_is_read_once(balancer: HttpBalancer, agent: HandAgent) -> None:
    """Keys of one name: the last one holds, as in every JSON reader of the clients."""
    body = b'{"model":"nobody","model":"default","messages":[{"role":"user","content":"hello"}]}'
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, content=body))
        await (await agent.take()).finish()
        assert (await asking).status_code == 200


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\ufffe\uffff", "\U0010ffff", "\u202e", "\x1b[31m"])
async def test_odd_characters_are_text_like_any_other(balancer: HttpBalancer, agent: HandAgent, text: str) -> None:
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(text)))
        request = await agent.take()
        assert request.asked.messages is not None
        assert request.asked.messages[0].content == text
        await request.say(text)
        await request.finish()
        assert (await asking).json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("name", ["a\x00b", "\x00", "../../etc/passwd", "{x}:y", "a b", "ü" * 200])
async def test_odd_names_of_models_are_not_found(balancer: HttpBalancer, name: str) -> None:
    async with balancer.http() as http:
        answer = await http.post(CHAT, content=json.dumps(chat() | {"model": name}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["%ff%fe", "%00", "%2e%2e%2f", "default.%0d%0aset-cookie:x", "x" * 5000])
async def test_odd_ids_are_no_ids(balancer: HttpBalancer, path: str) -> None:
    async with balancer.http() as http:
        for route in (f"/v1/requests/{path}", f"/v1/requests/{path}/stream", f"/v1/models/{path}"):
            answer = await http.get(route)
            assert answer.status_code in (400, 404), answer.text
            assert "set-cookie" not in answer.headers
            assert "error" in answer.json()


@pytest.mark.parametrize(
    "header",
    ["idempotency-key", "x-request-class", "x-request-timeout"],
)
async def test_odd_bytes_in_headers_are_refused_by_name(balancer: HttpBalancer, header: str) -> None:
    async with balancer.http() as http:
        answer = await http.post(CHAT, json=chat(), headers={header.encode(): b"\xff\xfe\x80"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"].lower() == header


@pytest.mark.parametrize("padding", [0, 9000], ids=["short", "long"])
async def test_a_depth_that_one_reader_takes_and_the_next_does_not(balancer: HttpBalancer, padding: int) -> None:
    """A long body is decoded in a thread, with more of a stack than what makes its fingerprint has."""
    async with balancer.http() as http:
        for depth in range(900, 1000, 7):
            deep = "[" * depth + "]" * depth
            text = json.dumps({"type": "string", "description": "x" * padding})[:-1] + f', "default": {deep}}}'
            body = json.dumps(chat())[:-1] + f', "json_schema": {text}}}'
            headers = {"idempotency-key": f"{padding}-{depth}", "x-request-timeout": "1"}
            answer = await http.post(CHAT, content=body, headers=headers)
            assert answer.status_code in (400, 504), (depth, answer.text[:300])


@pytest.mark.parametrize(("depth", "status"), [(63, 504), (64, 400), (500, 400)])
async def test_variables_of_a_template_have_a_depth(balancer: HttpBalancer, depth: int, status: int) -> None:
    variables: Any = {}
    for _ in range(depth):
        variables = {"a": variables}
    async with balancer.http() as http:
        body = json.dumps(chat(chat_template_kwargs=variables))
        assert (await http.post(CHAT, content=body, headers={"x-request-timeout": "1"})).status_code == status
