"""Everything that is refused before a request is submitted: true status, OpenAI's error object, the way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_harness import MAX_BODY, HttpBalancer, chat
from structlog.testing import capture_logs

from paddler.jobs.gateway import Gateway
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


@pytest.mark.parametrize("service", ["management", "inference", "openai"])
async def test_health_on_every_service(balancer: HttpBalancer, service: str) -> None:
    async with balancer.http(service) as http:
        answer = await http.get("/health")
        assert (answer.status_code, answer.text) == (200, "OK")
        assert answer.headers["content-type"].startswith("text/plain")
        head = await http.head("/health")
        assert (head.status_code, head.text) == (200, "")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"model": "default", ', "not valid JSON"),
        (b'{"model":"default","messages":[{"role":"user","content":"\xff"}]}', "not valid UTF-8"),
        (b'{"model":"default","messages":[{"role":"user","content":[{"type":"file","file":' + b"[" * 50_000, "deeply"),
    ],
)
async def test_bodies_that_are_no_json(balancer: HttpBalancer, body: bytes, says: str) -> None:
    async with balancer.http() as http:
        error = error_of(await http.post(CHAT, content=body), 400)
        assert says in error["message"]
        assert error["param"] is None


async def test_a_bad_field_is_named(balancer: HttpBalancer) -> None:
    async with balancer.http("openai") as http:
        error = error_of(await http.post(CHAT, json=chat(temperature=3)), 400)
        assert (error["param"], error["code"]) == ("temperature", "invalid_field")
        error = error_of(await http.post(CHAT, json=chat(audio={"voice": "x"})), 400)
        assert error["param"] == "audio"
        assert "not supported yet" in error["message"]


async def test_unknown_model(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        error = error_of(await http.post(CHAT, json=chat() | {"model": "gpt-9"}), 404)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert "gpt-9" in error["message"]
        error = error_of(await http.get("/v1/models/no/such"), 404)
        assert error["code"] == "model_not_found"
        assert "no/such" in error["message"]


async def test_unknown_route_and_method(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        error = error_of(await http.post("/chat/completions", json=chat()), 404)
        assert error["code"] == "route_not_found"
        assert "must end in /v1" in error["message"]
        assert "/v1" not in error_of(await http.get("/nowhere"), 404)["message"]
        answer = await http.get(CHAT)
        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert "POST" in answer.headers["allow"]
    async with balancer.http("management") as http:
        error = error_of(await http.post(CHAT, json=chat()), 404)
        assert error["code"] == "route_not_found"
        assert "must end" not in error["message"]


async def test_a_large_body_is_refused_by_its_length_and_while_it_is_read(balancer: HttpBalancer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (MAX_BODY // 4)

    async with balancer.http() as http:
        for content in (b"x" * (MAX_BODY + 1), pieces()):
            error = error_of(await http.post(CHAT, content=content), 413)
            assert error["code"] == "body_too_large"
            assert str(MAX_BODY) in error["message"]
        assert (await http.post(CHAT, content=b" " * MAX_BODY)).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 400),
        ({"content-type": "application/vnd.api+json"}, 400),
        ({}, 400),
    ],
)
async def test_media_type(balancer: HttpBalancer, headers: dict[str, str], status: int) -> None:
    async with balancer.http() as http:
        error_of(await http.post(CHAT, content=b"{}", headers=headers), status)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    balancer: HttpBalancer, caplog: pytest.LogCaptureFixture
) -> None:
    address = httpx.URL(balancer.url())
    with capture_logs() as logged:
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        await wait_until(lambda: balancer.num_connections() == 1)
        writer.close()
        await wait_until(lambda: balancer.num_connections() == 0)
        await wait_until(lambda: balancer.num_tasks() == 0)
    assert [(entry["event"], entry["log_level"]) for entry in logged] == [("request", "info")]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_bug_is_logged_and_says_nothing_to_the_client(
    balancer: HttpBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Gateway, *args: Any) -> Any:
        raise ValueError("a secret")

    monkeypatch.setattr(Gateway, "submit", broken)
    with capture_logs() as logged:
        async with balancer.http() as http:
            for stream in (False, True):
                error = error_of(await http.post(CHAT, json=chat(stream=stream)), 500)
                assert "secret" not in str(error)
    failures = [entry for entry in logged if entry["event"] != "request"]
    assert [str(entry["exc_info"]) for entry in failures] == ["a secret", "a secret"]


async def test_a_connection_survives_refusals(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        for _ in range(3):
            answer = await http.post(CHAT, content=b"{")
            assert answer.status_code == 400
            assert "connection" not in answer.headers
