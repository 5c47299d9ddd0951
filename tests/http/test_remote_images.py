"""`--allow-image-hosts`: what a balancer fetches that a request names by address, and what it never does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from file_server import FileServer, Trick
from http_harness import MAX_BODY, HandAgent, HttpBalancer, NewAgent, NewBalancer, chat
from tiny_vision import picture

from api.remote_images import MAX_REDIRECTS, RemoteImages
from api.serve import command
from paddler.errors import InvalidField
from paddler.image_hosts import ImageHost
from paddler.images import MAX_IMAGES
from paddler.wire.agent import ImagePart

pytestmark = pytest.mark.anyio

IMAGE = picture(7, size=(16, 16))
PNG = {"Content-Type": "image/png; charset=binary"}
HERE = ImageHost("127.0.0.1", may_be_plain=True)


@pytest.fixture
def files() -> Iterator[FileServer]:
    with FileServer() as server:
        server.put("/a.png", IMAGE, headers=PNG)
        yield server


@pytest.fixture
async def agent(new_agent: NewAgent) -> HandAgent:
    return await new_agent(slots=2, abilities="generate see")


@pytest.fixture
async def balancer(new_balancer: NewBalancer) -> HttpBalancer:
    return await new_balancer(image_hosts=(HERE,))


def asking(url: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return chat() | {"messages": [{"role": "user", "content": parts}]}


async def fetched(url: str, *hosts: ImageHost, patience_s: float = 5.0) -> bytes:
    return await RemoteImages(hosts, MAX_BODY, patience_s=patience_s).put_into(
        httpx.Request("POST", "/", json=asking(url)).read()
    )


async def refusal(url: str, *hosts: ImageHost, patience_s: float = 5.0) -> str:
    with pytest.raises(InvalidField) as caught:
        await fetched(url, *hosts, patience_s=patience_s)
    assert caught.value.param == "messages[0].content[1].image_url.url"
    return caught.value.message


ROUTES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "chat": ("/v1/chat/completions", lambda url: asking(url)),
    "responses": (
        "/v1/responses",
        lambda url: {
            "model": "default",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}],
        },
    ),
    "messages": (
        "/v1/messages",
        lambda url: {
            "model": "default",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}],
        },
    ),
    "native": (
        "/api/v1/continue_from_conversation_history",
        lambda url: {
            "add_generation_prompt": True,
            "conversation_history": [{"role": "user", "content": asking(url)["messages"][0]["content"]}],
            "enable_thinking": False,
            "max_tokens": 5,
        },
    ),
}


@pytest.mark.parametrize("route", ROUTES)
async def test_an_image_is_fetched_on_every_route(
    balancer: HttpBalancer, agent: HandAgent, files: FileServer, route: str
) -> None:
    path, body = ROUTES[route]
    async with balancer.http() as http:
        task = asyncio.create_task(http.post(path, json=body(files.url("/a.png"))))
        request = await agent.take()
        parts = [part for message in request.asked.messages or () for part in message.parts]
        assert [part.data for part in parts if isinstance(part, ImagePart)] == [IMAGE]
        await request.say("tiles")
        await request.finish()
        assert (await task).status_code == 200
    [headers] = files.gets("/a.png")
    assert headers["host"] == files.host


async def test_by_default_nothing_is_called_and_the_flag_is_named(new_balancer: NewBalancer, files: FileServer) -> None:
    plain = await new_balancer()
    async with plain.http() as http:
        for path, body in ROUTES.values():
            answer = await http.post(path, json=body(files.url("/a.png")))
            assert "--allow-image-hosts" in answer.text
    assert files.seen == []


async def test_a_repeat_is_known_by_what_was_sent(balancer: HttpBalancer, agent: HandAgent, files: FileServer) -> None:
    """Not by what the address gave: that may be another image by then."""
    headers = {"idempotency-key": "one"}
    async with balancer.http() as http:
        task = asyncio.create_task(http.post("/v1/chat/completions", json=asking(files.url("/a.png")), headers=headers))
        request = await agent.take()
        await request.say("tiles")
        await request.finish()
        first = await task
        files.put("/a.png", picture(8, size=(16, 16)), headers=PNG)
        again = await http.post("/v1/chat/completions", json=asking(files.url("/a.png")), headers=headers)
    assert (first.status_code, again.status_code, again.json()["id"]) == (200, 200, first.json()["id"])


async def test_redirections_are_looked_at_again(files: FileServer) -> None:
    def leads(to: str) -> None:
        files.trick("/r", Trick(status=302, headers={"Location": to}))

    leads("/a.png")
    assert b"data:image/png;base64," in await fetched(files.url("/r"), HERE)
    leads(files.url("/a.png").replace("127.0.0.1", "localhost"))
    assert "does not have its host" in await refusal(files.url("/r"), HERE)
    leads("http://169.254.169.254/latest/meta-data/")
    assert "does not have its host" in await refusal(files.url("/r"), HERE)
    assert "not https" in await refusal(files.url("/r"), HERE, ImageHost("*"))
    leads("https://169.254.169.254/latest/meta-data/")
    assert "private network" in await refusal(files.url("/r"), HERE, ImageHost("*"))
    leads("file:///etc/passwd")
    assert "not fetched" in await refusal(files.url("/r"), HERE)
    leads("/r")
    assert f"more than {MAX_REDIRECTS} times" in await refusal(files.url("/r"), HERE)
    assert len(files.gets("/a.png")) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://127.0.0.1/a.png", "private network"),
        ("https://localhost/a.png", "private network"),
        ("https://[::1]/a.png", "private network"),
        ("https://[::ffff:10.0.0.1]/a.png", "private network"),
        ("https://[64:ff9b::a00:1]/a.png", "private network"),
        ("https://[2002:a00:1::]/a.png", "private network"),
        ("https://169.254.169.254/latest", "private network"),
        ("https://10.0.0.1/a.png", "private network"),
        ("https://100.64.0.1/a.png", "private network"),
        ("https://0.0.0.0/a.png", "private network"),
        ("https://2130706433/a.png", "private network"),
        ("https://0x7f.1/a.png", "private network"),
        ("http://192.0.43.7/a.png", "not https"),
        ("https://192.0.43.7:6379/a.png", "a port of its own"),
        ("https://user:secret@192.0.43.7/a.png", "does not have its host"),
    ],
)
async def test_any_host_is_any_public_one(url: str, why: str) -> None:
    """And a name that leads to several addresses is refused for one of them."""
    message = await refusal(url, ImageHost("*"))
    assert why in message
    assert "secret" not in message


async def test_a_name_is_resolved_once(files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer of a name server that changes its mind is never asked for."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def changing(host: Any, port: Any, **how: Any) -> Any:
        if host != "images.example":
            return await real(host, port, **how)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", changing)
    url = files.url("/a.png").replace("127.0.0.1", "images.example")
    assert b"data:image/png" in await fetched(url, ImageHost("images.example", may_be_plain=True))
    assert asked == ["images.example"]
    assert files.gets("/a.png")[0]["host"] == url.split("/")[2]
    assert "private network" in await refusal("https://images.example/a.png", ImageHost(".example"))


async def test_what_comes_is_bounded_and_looked_at(files: FileServer) -> None:
    files.put("/big.png", b"x" * MAX_BODY, headers=PNG)
    assert "--max-body" in await refusal(files.url("/big.png"), HERE)
    files.trick("/big.png", Trick(is_chunked=True, has_length=False))
    assert "--max-body" in await refusal(files.url("/big.png"), HERE)
    files.put("/page", b"<html>", headers={"Content-Type": "text/html"})
    assert "none of image/png" in await refusal(files.url("/page"), HERE)
    files.put("/zipped.png", IMAGE, headers=PNG)
    files.trick("/zipped.png", Trick(is_zipped=True))
    assert "none of image/png" in await refusal(files.url("/zipped.png"), HERE)
    assert "answers with 404" in await refusal(files.url("/none.png"), HERE)
    files.put("/slow.png", IMAGE, headers=PNG)
    for trick in (Trick(hangs=True), Trick(stalls_at=20)):
        files.trick("/slow.png", trick)
        assert "within 0.3 s" in await refusal(files.url("/slow.png"), HERE, patience_s=0.3)
    assert "cannot be reached" in await refusal("http://127.0.0.1:1/a.png", HERE)


async def test_how_many_and_where(files: FileServer) -> None:
    images = RemoteImages((HERE,), MAX_BODY)
    parts = [{"type": "image_url", "image_url": {"url": files.url("/a.png")}}] * (MAX_IMAGES + 1)
    body = httpx.Request("POST", "/", json={"messages": [{"role": "user", "content": parts}]}).read()
    with pytest.raises(InvalidField, match=f"At most {MAX_IMAGES}"):
        await images.put_into(body)
    tool = {"type": "image_url", "image_url": {"url": files.url("/a.png")}}
    for untouched in (b'{"http', httpx.Request("POST", "/", json={"tools": [tool], "messages": 3}).read()):
        assert await images.put_into(untouched) == untouched
    assert files.seen == []


def hosts_of(text: str) -> tuple[ImageHost, ...]:
    context = command.make_context("balancer", ["--allow-image-hosts", text])
    return context.params["allow_image_hosts"]


def test_the_flag() -> None:
    assert hosts_of("Images.example.org, .cdn.example,http://10.0.0.7,*") == (
        ImageHost("images.example.org"),
        ImageHost(".cdn.example"),
        ImageHost("10.0.0.7", may_be_plain=True),
        ImageHost("*"),
    )
    below = ImageHost(".cdn.example")
    assert [below.allows(host) for host in ("cdn.example", "a.cdn.example", "evilcdn.example")] == [True, True, False]
    for wrong in ("https://a.example/path", "http://*", "a b", "http://.a.example"):
        told = CliRunner().invoke(command, ["--allow-image-hosts", wrong], env={"COLUMNS": "300"})
        assert told.exit_code == 2
        assert "is none of" in told.output
