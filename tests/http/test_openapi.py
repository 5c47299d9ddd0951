"""`/openapi.json`: complete, valid, and of the types that decode and render. `test_fuzz.py` asks whether it is true."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, chat
from jsonschema import Draft202012Validator
from litestar import Litestar, get
from litestar.routes import HTTPRoute
from openapi_checks import Document, closed, document_of

from api.openai import chat as chat_calls
from api.openapi import openapi_document
from paddler.errors import EngineFailed, leaves
from paddler.wire.balancer import Prefilled, TextFormat, TokenLogprob, Tokens, Vectors

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
SERVICES = pytest.mark.parametrize("service", ["inference", "openai", "management"])


def refs(value: Any) -> set[str]:
    if isinstance(value, list):
        return set[str]().union(*map(refs, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set[str]()
    return own.union(*map(refs, value.values()))


@SERVICES
async def test_every_route_of_every_service_is_in_its_document(balancer: HttpBalancer, service: str) -> None:
    found = {(path, method) for path, method, _ in (await document_of(balancer, service)).operations()}
    late: Any = balancer.service(service).config.app
    app = late.made
    assert isinstance(app, Litestar)
    for route in app.routes:
        if isinstance(route, HTTPRoute):  # OpenAPI has no words for a WebSocket
            parts = [part if isinstance(part, str) else f"{{{part.name}}}" for part in route.path_components]
            path = "/" + "/".join(parts)
            for method in route.methods - {"OPTIONS"}:
                assert (path, method.lower()) in found, f"{method} {path} has no operation=; see api/DESIGN.md"


@SERVICES
async def test_a_document_is_valid_and_whole(balancer: HttpBalancer, service: str) -> None:
    async with balancer.http(service) as http:
        answer = await http.get("/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.content == (await http.get("/schema/openapi.json")).content
    found = Document(answer.json())
    assert found.content["openapi"] == "3.2.0"
    assert found.content["info"]["title"]
    for ref in refs(found.content):
        name = ref.removeprefix("#/components/schemas/")
        assert name in found.content["components"]["schemas"], ref
    for schema in found.content["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for _, _, operation in found.operations()]
    assert len(names) == len(set(names))
    for path, method, operation in found.operations():
        assert operation["summary"].endswith("."), path
        assert operation["tags"], path
        assert all(answer["description"] for answer in operation["responses"].values()), (path, method)


async def test_a_route_without_a_declaration_is_refused_by_name() -> None:
    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> None: ...

    with pytest.raises(LookupError, match="/forgotten has no operation=Operation"):
        openapi_document("test", [forgotten])


async def test_the_body_of_the_document_is_what_the_decoder_takes(balancer: HttpBalancer) -> None:
    found = await document_of(balancer)
    schema = found.content["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ChatRequest"}
    fields = found.content["components"]["schemas"]["ChatRequest"]
    assert set(fields["properties"]) == set(chat_calls.DECODER.type.__struct_encode_fields__)
    assert fields["additionalProperties"] is False
    assert fields["required"] == ["model", "messages"]
    assert fields["properties"]["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}


async def test_each_error_has_its_status_and_its_words(balancer: HttpBalancer) -> None:
    answers = (await document_of(balancer)).content["paths"][CHAT]["post"]["responses"]
    elsewhere = {"request_not_found", "file_not_found", "batch_not_found", "conflict", "storage_full", "file_elsewhere"}
    elsewhere |= {"state_not_found", "version_conflict"}
    elsewhere |= {"agent_not_found", "pool_not_found", "embeddings_off"}
    elsewhere |= {
        "key_not_found",
        "prefix_not_found",
        "tenant_storage_full",
        "tenant_batches_full",
        "tenant_lines_full",
    }
    for code, error in leaves().items():
        if code not in elsewhere and error.__module__ == "paddler.errors":
            assert f"`{code}`: {error.__doc__}" in answers[str(error.status)]["description"]


def test_a_closed_schema_knows_a_field_that_was_forgotten() -> None:
    schema = closed({"type": "object", "properties": {"a": {"type": "object", "properties": {}}}})
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"a": {}})
    assert not validator.is_valid({"b": 1})
    assert not validator.is_valid({"a": {"b": 1}})


async def say_everything(agent: HandAgent, format: TextFormat | None, text: str) -> None:
    request = await agent.take()
    await request.emit(Prefilled(5, 1, format))
    logprobs = (TokenLogprob(b"he", -0.5, ((b"he", -0.5), (b"\xff", float("-inf")))),)
    await request.emit(Tokens((1,), "he", logprobs=logprobs if request.asked.logprobs is not None else ()))
    await request.say(text)
    await request.finish()


CALL = '<tool_call>\n{"name": "look", "arguments": {"a": 1}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("fields", "format", "text"),
    [
        ({}, None, "llo"),
        ({"logprobs": True, "top_logprobs": 2}, None, "llo"),
        ({"tools": TOOLS}, TextFormat("hermes", "think"), f"<think>so</think>{CALL}"),
        ({"n": 2}, None, "llo"),
    ],
    ids=["plain", "logprobs", "tools", "choices"],
)
async def test_answers_of_every_kind_are_in_the_document(
    balancer: HttpBalancer, new_agent: Any, stream: bool, fields: dict[str, Any], format: TextFormat | None, text: str
) -> None:
    found, agent = await document_of(balancer), await new_agent(slots=2)
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(**fields, **options)))
        for _ in range(fields.get("n", 1)):
            await say_everything(agent, format, text)
        answer = await asking
        assert answer.status_code == 200
        found.check(CHAT, "post", 200, answer.headers["content-type"], answer.text)
        if fields.get("n", 1) == 1:
            request_id = answer.headers["x-request-id"]
            status = await http.get(f"/v1/requests/{request_id}")
            found.check("/v1/requests/{request_id}", "get", 200, "application/json", status.text)
            again = await http.get(f"/v1/requests/{request_id}/stream")
            found.check("/v1/requests/{request_id}/stream", "get", 200, again.headers["content-type"], again.text)


async def test_an_error_in_a_stream_is_in_the_document(balancer: HttpBalancer, agent: HandAgent) -> None:
    found = await document_of(balancer)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(stream=True)))
        request = await agent.take()
        await request.say("hello")
        await request.fail(EngineFailed("broken"))
        answer = await asking
        assert "broken" in answer.text
        found.check(CHAT, "post", 200, answer.headers["content-type"], answer.text)


async def test_vectors_and_rankings_are_in_the_document(balancer: HttpBalancer, agent: HandAgent) -> None:
    found = await document_of(balancer)

    async def ask(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
        asking = asyncio.create_task(http.post(path, content=json.dumps({"model": "default"} | body)))
        request = await agent.take()
        await request.emit(Vectors((b"\x00\x00\x80\x3f",), (2,)))
        await request.finish()
        answer = await asking
        found.check(path, "post", answer.status_code, answer.headers["content-type"], answer.text)
        status = await http.get(f"/v1/requests/{answer.headers['x-request-id']}")
        found.check("/v1/requests/{request_id}", "get", 200, "application/json", status.text)

    async with balancer.http() as http:
        await ask(http, "/v1/embeddings", {"input": "a"})
        await ask(http, "/v1/embeddings", {"input": ["a"], "encoding_format": "base64"})
        await ask(http, "/v1/rerank", {"query": "a", "documents": ["b"], "return_documents": True})


async def test_background_and_models_are_in_the_document(balancer: HttpBalancer, agent: HandAgent) -> None:
    found = await document_of(balancer)
    async with balancer.http() as http:
        accepted = await http.post(CHAT, json=chat(background=True))
        found.check(CHAT, "post", accepted.status_code, accepted.headers["content-type"], accepted.text)
        await (await agent.take()).finish()
        for path, url in (("/v1/models", "/v1/models"), ("/v1/models/{model_path}", "/v1/models/tiny")):
            answer = await http.get(url)
            found.check(path, "get", answer.status_code, answer.headers["content-type"], answer.text)
