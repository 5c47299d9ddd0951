"""What a line may be, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from batch_harness import chat_line, embedding_line

from paddler.batches.lines import LineProblem, load_format
from paddler.errors import ContextExceeded
from paddler.wire.agent import Embed, Generate

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
FORMAT = load_format()


async def read(line: Any, endpoint: str = CHAT) -> Any:
    data = line if isinstance(line, bytes) else json.dumps(line).encode()
    return await FORMAT.read(data, endpoint, seed=7, created=1)


async def test_a_chat_line() -> None:
    call = await read(chat_line("a", "hello ☃", max_tokens=3, n=2))
    assert (call.custom_id, call.model) == ("a", "default")
    first, second = [request.payload for request in call.requests]
    assert isinstance(first, Generate)
    assert first.max_tokens == 3
    assert first.messages
    assert first.messages[0].content == "hello ☃"
    assert first.sampling.seed == 7
    assert second.sampling.seed != 7


async def test_an_embedding_line() -> None:
    line = embedding_line("e", "x")
    line["body"]["input"] = ["one", "two"]
    (request,) = (await read(line, "/v1/embeddings")).requests
    assert isinstance(request.payload, Embed)
    assert request.payload.inputs == ("one", "two")


async def test_a_completion_line() -> None:
    body = {"model": "default", "prompt": ["one", "two"], "n": 2, "max_tokens": 3, "echo": True}
    line = chat_line("c", "x") | {"url": "/v1/completions", "body": body}
    payloads = [request.payload for request in (await read(line, "/v1/completions")).requests]
    assert [payload.prompt for payload in payloads] == ["one", "one", "two", "two"]


async def test_a_response_line() -> None:
    body = {"model": "default", "input": "hello", "instructions": "Be brief."}
    line = chat_line("r", "x") | {"url": "/v1/responses", "body": body}
    (request,) = (await read(line, "/v1/responses")).requests
    assert [message.content for message in request.payload.messages] == ["Be brief.", "hello"]


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        ("/v1/completions", {"prompt": "a", "stream": True}, "stream"),
        ("/v1/completions", {"prompt": [1, 2], "echo": True}, "echo"),
        ("/v1/responses", {"input": "a", "stream": True}, "stream"),
        ("/v1/responses", {"input": "a", "background": True}, "background"),
        ("/v1/responses", {"input": "a", "store": True}, "store"),
        ("/v1/responses", {"input": "a", "previous_response_id": "resp_default.0"}, "previous_response_id"),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "msg_a_0"}]}, "input[0]"),
    ],
)
async def test_what_a_batch_cannot_do_names_its_field(url: str, body: dict[str, Any], param: str) -> None:
    line = chat_line("a", "x") | {"url": url, "body": {"model": "default"} | body}
    with pytest.raises(LineProblem) as caught:
        await read(line, url)
    assert caught.value.param == f"body.{param}"


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (b'"text"', "invalid_line", None),
        pytest.param(b"[" * 100_000, "invalid_line", None, id="deep"),
        ({"method": "POST", "url": CHAT, "body": {}}, "missing_required_parameter", "custom_id"),
        (chat_line("", "x"), "invalid_line", "custom_id"),
        (chat_line("x" * 513, "x"), "invalid_line", "custom_id"),
        (chat_line("a", "x") | {"method": "GET"}, "invalid_method", "method"),
        (chat_line("a", "x") | {"url": "/v1/embeddings"}, "mismatched_url", "url"),
        (chat_line("a", "x") | {"priority": 1}, "invalid_line", "priority"),
        (chat_line("a", "x", temperatur=1), "invalid_field", "body.temperatur"),
        (chat_line("a", "x", temperature=3), "invalid_field", "body.temperature"),
        (chat_line("a", "x", stream=True), "invalid_field", "body.stream"),
        (chat_line("a", "x", background=True), "invalid_field", "body.background"),
        (chat_line("a", "x") | {"body": "text"}, "invalid_field", "body"),
    ],
)
async def test_a_line_that_cannot_be_run(line: Any, code: str, param: str | None) -> None:
    with pytest.raises(LineProblem) as problem:
        await read(line)
    assert (problem.value.code, problem.value.param) == (code, param), problem.value.message


def test_lines_of_the_files() -> None:
    whole = FORMAT.answered("batch_req_1", 'a"', "default.r", [b'{"id":', b"1}"])
    assert whole == (
        b'{"id":"batch_req_1","custom_id":"a\\"","response":{"status_code":200,"request_id":"default.r",'
        b'"body":{"id":1}},"error":null}\n'
    )
    refused = json.loads(FORMAT.refused("batch_req_1", "a", "default.r", ContextExceeded("too long")))
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert refused["error"] is None
    not_run = FORMAT.not_run("batch_req_1", "a", "batch_expired", "Too late.")
    assert not_run == (
        b'{"id":"batch_req_1","custom_id":"a","response":null,"error":{"code":"batch_expired","message":"Too late."}}\n'
    )


def test_the_id_of_any_line_can_be_asked_for() -> None:
    assert FORMAT.custom_id(json.dumps(chat_line("a", "x")).encode()) == "a"
    for line in (b"{", b"[]", b"\xff", b"[" * 100_000):
        assert FORMAT.custom_id(line) == ""
