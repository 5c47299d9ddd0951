"""Pages in a real browser: what one of an allowed origin can do, what any other cannot, and one that rebinds its name.

`test_cors.py` and `test_hosts.py` say what is sent; here Chromium says what comes of that.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from http_harness import HandAgent, HttpBalancer, NewBalancer, chat
from lacking import lacks
from native_harness import SOCKET
from playwright.async_api import Browser, Page, async_playwright

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), pytest.mark.xdist_group("browser")]

NAMES = ("evil.example", "llm.example.org")
"""Lead to this machine, in this browser."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Without Chromium these tests skip on a laptop and fail in CI."""
    path = shutil.which("chromium")
    if path is None:
        lacks("Chromium is not installed: apt-get install chromium")
    rules = ", ".join(f"MAP {name} 127.0.0.1" for name in NAMES)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        # Newer ones ask people before a page reaches this machine; a service must not count on that.
        asks = "--disable-features=LocalNetworkAccessChecks"
        arguments = [f"--host-resolver-rules={rules}", asks, *sandbox]
        made = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield made
        await made.close()


@asynccontextmanager
async def page_server() -> AsyncGenerator[str]:
    """An origin with an empty page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<!doctype html><title>a page</title>"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def opened(browser: Browser) -> AsyncGenerator[tuple[Page, str]]:
    async with page_server() as origin:
        page = await browser.new_page()
        await page.goto(origin)
        yield page, origin
        await page.close()


ASK = """async ([url, how]) => {
    try {
        const answer = await fetch(url, how);
        return {status: answer.status, id: answer.headers.get("x-request-id"), body: await answer.text()};
    } catch (error) { return {error: error.name}; }
}"""
FIRST_EVENT = """(url) => new Promise((resolve) => {
    const source = new EventSource(url);
    source.onmessage = (event) => { source.close(); resolve(event.data); };
    source.onerror = () => { source.close(); resolve("refused"); };
})"""
FIRST_MESSAGE = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.send("{");
    socket.onmessage = (event) => { socket.close(); resolve(event.data); };
    socket.onerror = () => resolve("refused");
})"""


async def test_a_page_that_is_allowed(browser: Browser, new_balancer: NewBalancer) -> None:
    async with opened(browser) as (page, origin):
        balancer = await new_balancer(cors=(origin,))
        url, operators = balancer.url(), balancer.url("management")

        # Its own headers make the browser ask before.
        headers = {"authorization": "Bearer none", "x-request-id": "mine", "x-stainless-lang": "js"}
        models = await page.evaluate(ASK, [f"{url}/v1/models", {"headers": headers}])
        assert (models["status"], models["id"]) == (200, "mine")

        agent = HandAgent(balancer.store)
        await agent.register()
        post = {"method": "POST", "headers": {"content-type": "application/json"}}
        body = '{"model": "default", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
        asking = asyncio.create_task(page.evaluate(ASK, [f"{url}/v1/chat/completions", {**post, "body": body}]))
        request = await agent.take()
        await request.say("hello page")
        await request.finish()
        assert "hello page" in (await asking)["body"]
        await agent.leave()

        wrong = await page.evaluate(ASK, [f"{url}/v1/chat/completions", {**post, "body": "{}"}])
        assert wrong["status"] == 400, "an error can be read, too"
        assert "invalid_field" in wrong["body"]
        gone = await page.evaluate(ASK, [f"{operators}/api/v1/agent/agent-none", {"method": "DELETE"}])
        assert gone["status"] == 404, "a method that needs a preflight"
        assert await page.evaluate(FIRST_EVENT, f"{operators}/api/v1/agents/stream") == '{"agents":[]}'
        socket = url.replace("http", "ws") + SOCKET
        assert "400" in await page.evaluate(FIRST_MESSAGE, socket)


async def test_a_page_of_anybody(browser: Browser, new_balancer: NewBalancer) -> None:
    """It reads nothing, and changes nothing either where a browser asks nobody before."""
    balancer = await new_balancer(cors=("https://chat.example.org",))
    url, operators = balancer.url(), balancer.url("management")
    agent = HandAgent(balancer.store)
    await agent.register()
    async with opened(browser) as (page, _):
        unread = {"error": "TypeError"}
        for path, how in (
            (f"{url}/v1/models", {}),
            (f"{operators}/api/v1/agents", {}),
            (f"{url}/v1/files", {"method": "DELETE"}),
            (f"{operators}/api/v1/agent/{agent.agent_id}/drain", {"method": "POST"}),
            (f"{operators}/api/v1/agent/{agent.agent_id}", {"method": "DELETE"}),
        ):
            assert await page.evaluate(ASK, [path, how]) == unread, path
        # As text, which a browser sends unasked.
        asked = {"method": "POST", "mode": "no-cors", "body": str(chat()).replace("'", '"')}
        await page.evaluate(ASK, [f"{url}/v1/chat/completions", asked])
        assert await page.evaluate(FIRST_EVENT, f"{operators}/api/v1/agents/stream") == "refused"
        assert await page.evaluate(FIRST_MESSAGE, url.replace("http", "ws") + SOCKET) == "refused"
    assert await balancer.demand() == 0
    assert await balancer.store.redis.hget(agent.pool.keys.agent(agent.agent_id), "drain") is None
    await agent.leave()


async def rebound(page: Page, balancer: HttpBalancer, service: str, name: str) -> str:
    """The page of a host whose name leads here by now: it was loaded when that still led to its own server."""
    port = balancer.url(service).rpartition(":")[2]
    origin = f"http://{name}:{port}"
    await page.route(f"{origin}/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    await page.goto(origin)
    return origin


async def test_a_page_that_rebinds_its_name(browser: Browser, new_balancer: NewBalancer) -> None:
    """To the browser it is of one origin with the service: only `Host` tells them apart."""
    balancer = await new_balancer(allowed_hosts=("llm.example.org",))
    agent = HandAgent(balancer.store)
    await agent.register()
    page = await browser.new_page()
    for service, path in (("management", "/api/v1/agents"), ("inference", "/v1/models"), ("openai", "/v1/models")):
        origin = await rebound(page, balancer, service, "evil.example")
        answer = await page.evaluate(ASK, [path, {}])
        assert answer["status"] == 421, "it can be read, and says nothing"
        assert "host_not_allowed" in answer["body"]
        await rebound(page, balancer, service, "llm.example.org")
        assert (await page.evaluate(ASK, [path, {}]))["status"] == 200, "a name that the operator allows"
    origin = await rebound(page, balancer, "management", "evil.example")
    drain = await page.evaluate(ASK, [f"/api/v1/agent/{agent.agent_id}/drain", {"method": "POST"}])
    assert drain["status"] == 421
    origin = await rebound(page, balancer, "inference", "evil.example")
    assert await page.evaluate(FIRST_MESSAGE, origin.replace("http", "ws") + SOCKET) == "refused"
    assert await balancer.store.redis.hget(agent.pool.keys.agent(agent.agent_id), "drain") is None
    await agent.leave()
