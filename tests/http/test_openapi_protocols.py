"""Answers of every protocol beside chat completions, whole and streamed, are in the document; so are an operator's."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, NewAgent
from native_harness import params
from openapi_checks import EVENTS, Document, document_of

from paddler.errors import EngineFailed
from paddler.issues import encode_issues, issue_of
from paddler.wire.answers import Counted, Detokenized, Templated, Tokenized, encode_answer
from paddler.wire.balancer import Answered, Prefilled, TextFormat, TokenLogprob, Tokens

pytestmark = pytest.mark.anyio

SAID = '<think>so</think>well<tool_call>\n{"name": "look", "arguments": {"a": 1}}\n</tool_call>'
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
MESSAGES = [{"role": "user", "content": "hello"}]
NATIVE_TOOL = {"type": "function", "function": {"name": "look", "description": "", "parameters": SCHEMA}}
NATIVE = params("hello", tools=[NATIVE_TOOL], parse_tool_calls=True)
LOGPROBS = "message.output_text.logprobs"

GENERATING: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("/v1/completions", {"prompt": "hello", "echo": True}),
    "text with logprobs": ("/v1/completions", {"prompt": "hello", "logprobs": 1}),
    "message": (
        "/v1/messages",
        {"max_tokens": 9, "messages": MESSAGES, "tools": [{"name": "look", "input_schema": SCHEMA}]},
    ),
    "response": (
        "/v1/responses",
        {
            "input": [{"role": "user", "content": "hello"}],
            "tools": [{"type": "function", "name": "look", "parameters": SCHEMA}],
            "metadata": {"a": "b"},
        },
    ),
    "response with logprobs": ("/v1/responses", {"input": "hello", "include": [LOGPROBS], "top_logprobs": 1}),
    "native": ("/api/v1/continue_from_conversation_history", NATIVE),
    "native raw": ("/api/v1/continue_from_raw_prompt", {"max_tokens": 9, "raw_prompt": "hello"}),
}


@pytest.fixture
async def agent(new_agent: NewAgent) -> HandAgent:
    return await new_agent(abilities="generate tokenize")


def check(found: Document, path: str, method: str, answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    found.check(path, method, 200, answer.headers["content-type"], answer.text)


async def generate(agent: HandAgent, *, fails: bool) -> None:
    request = await agent.take()
    await request.emit(Prefilled(5, 1, TextFormat("hermes", "think") if request.asked.tools else None))
    logprobs = (TokenLogprob(b"he", -0.5, ((b"he", -0.5), (b"\xff", float("-inf")))),)
    if request.asked.logprobs is not None:
        await request.emit(Tokens((1,), "he", logprobs=logprobs))
    await request.say(SAID)
    if fails:
        await request.fail(EngineFailed("broken"))
    else:
        await request.finish()


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("path", "body"), GENERATING.values(), ids=GENERATING.keys())
async def test_what_is_generated(
    balancer: HttpBalancer, agent: HandAgent, path: str, body: dict[str, Any], stream: bool, fails: bool
) -> None:
    found = await document_of(balancer)
    asked = body if path.startswith("/api/") else body | {"model": "default", "stream": stream}
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(path, json=asked))
        await generate(agent, fails=fails)
        answer = await asking
        found.check(path, "post", answer.status_code, answer.headers["content-type"], answer.text)
        assert (answer.status_code == 500) == (fails and not stream and not path.startswith("/api/")), answer.text
        request_id = answer.headers["x-paddler-request-id"]
        check(found, "/v1/requests/{request_id}", "get", await http.get(f"/v1/requests/{request_id}"))
        again = await http.get(f"/v1/requests/{request_id}/stream")
        if again.status_code == 200:
            check(found, "/v1/requests/{request_id}/stream", "get", again)


async def test_a_response_by_its_id(balancer: HttpBalancer, agent: HandAgent) -> None:
    found = await document_of(balancer)
    path, body = GENERATING["response"]
    async with balancer.http() as http:
        made = await http.post(path, json=body | {"model": "default", "background": True})
        check(found, path, "post", made)
        own = f"{path}/{made.json()['id']}"
        of_id = path + "/{response_id}"
        check(found, of_id, "get", await http.get(own))
        await generate(agent, fails=False)
        check(found, of_id, "get", await http.get(own, params={"stream": "true"}))
        check(found, of_id, "get", await http.get(own))
        check(found, of_id + "/input_items", "get", await http.get(f"{own}/input_items"))
        check(found, of_id + "/cancel", "post", await http.post(f"{own}/cancel"))
        check(found, of_id, "delete", await http.delete(own))


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/tokenize", {"content": "a"}, Tokenized((1, 2))),
        ("/v1/tokenize", {"content": "a", "with_pieces": True}, Tokenized((1, 2), (b"a", b"\xff"))),
        ("/detokenize", {"tokens": [1]}, Detokenized("a")),
        ("/apply-template", {"messages": MESSAGES}, Templated("a")),
        ("/v1/messages/count_tokens", {"model": "default", "messages": MESSAGES}, Counted(3)),
    ],
)
async def test_questions(balancer: HttpBalancer, agent: HandAgent, path: str, body: dict[str, Any], said: Any) -> None:
    found = await document_of(balancer)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(path, json=body))
        request = await agent.take()
        await request.emit(Answered(encode_answer(said)))
        await request.finish()
        answer = await asking
        check(found, path, "post", answer)
        request_id = answer.headers["x-paddler-request-id"]
        check(found, "/v1/requests/{request_id}", "get", await http.get(f"/v1/requests/{request_id}"))


async def test_what_an_operator_sees(balancer: HttpBalancer, agent: HandAgent) -> None:
    found = await document_of(balancer, "management")
    issues = (
        issue_of("ModelFileDoesNotExist", "no such file", "/m.gguf", waits=True),
        issue_of("SettingsInvalid", "odd", "", waits=False),
    )
    await agent.pool.renew(agent.agent_id, lease_ms=60_000, snapshot={"issues": encode_issues(issues)})
    async with balancer.http("management") as http:
        for path in ("/api/v1/agents", "/api/v1/buffered_requests", "/metrics", "/health"):
            check(found, path, "get", await http.get(path))
        check(found, "/health", "get", await http.get("/health", headers={"accept": "application/json"}))
        for path in ("/api/v1/agents/stream", "/api/v1/buffered_requests/stream"):
            async with http.stream("GET", path) as stream:
                assert stream.headers["content-type"] == EVENTS
                line = await anext(stream.aiter_lines())
                found.check_event(path, stream.status_code, line.removeprefix("data: "))


async def test_every_answer_has_the_headers_of_the_front(balancer: HttpBalancer) -> None:
    """Whatever route, and whatever it answers; a request that its front refuses has the route's form of an error."""
    found = await document_of(balancer)
    for path, method, operation in found.operations():
        for status, answer in operation["responses"].items():
            if status != "408":
                assert {"x-request-id", "openai-processing-ms"} <= answer["headers"].keys(), (path, method, status)
        async with balancer.http() as http:
            bad = await http.request(method, path, headers={"x-sse-keepalive": "a b"})
            assert bad.status_code == 400
            assert {"x-request-id", "openai-processing-ms"} <= bad.headers.keys()
            if method != "head":
                found.check(path, method, 400, bad.headers["content-type"], bad.text)
