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
from structlog.testing import capture_logs
from tiny_vision import picture

from api.remote_images import MAX_REDIRECTS, RemoteImages
from api.serve import command
from paddler.errors import ImageFetchesFull, InvalidField
from paddler.image_hosts import ImageHost
from paddler.images import MAX_IMAGES
from paddler.testing.waiting import wait_until
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
        files.trick("/a.png", Trick(status=410))
        expired = await http.post("/v1/chat/completions", json=asking(files.url("/a.png")), headers=headers)
        kept = await http.get(f"/v1/requests/{first.headers['x-request-id']}")
    assert (first.status_code, again.status_code, again.json()["id"]) == (200, 200, first.json()["id"])
    assert (expired.status_code, kept.status_code) == (400, 200), "it is fetched before the answer is looked for"


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
        ("https://[::10.0.0.1]/a.png", "private network"),
        ("https://[::127.0.0.1]/a.png", "private network"),
        ("https://[::ffff:0:10.0.0.1]/a.png", "private network"),
        ("https://[fec0::1]/a.png", "private network"),
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
    with capture_logs() as logs:
        message = await refusal(url, ImageHost("*"))
    assert why in message
    if why == "private network":  # and not merely a place that cannot be reached from here
        assert [line["error"] for line in logs] == [why]
    assert "secret" not in message


@pytest.fixture
async def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names below `.example` that were asked for. The first answer is this machine; then the name server changes its
    mind, and `none.example` is not there."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def changing(host: Any, port: Any, **how: Any) -> Any:
        if not host.endswith(".example"):
            return await real(host, port, **how)
        if host == "none.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = "127.0.0.2" if host in asked else "127.0.0.1"
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", changing)
    return asked


async def test_a_name_is_resolved_once(files: FileServer, looked_up: list[str]) -> None:
    """The second answer of a name server that changes its mind is never asked for."""
    url = files.url("/a.png").replace("127.0.0.1", "images.example")
    assert b"data:image/png" in await fetched(url, ImageHost("images.example", may_be_plain=True))
    assert looked_up == ["images.example"]
    assert files.gets("/a.png")[0]["host"] == url.split("/")[2]
    assert "private network" in await refusal("https://images.example/a.png", ImageHost(".example"))


async def test_a_refusal_does_not_tell_which_names_are_there(looked_up: list[str]) -> None:
    there, none = [await refusal(f"https://{name}.example/a.png", ImageHost("*")) for name in ("there", "none")]
    assert looked_up == ["there.example"]
    assert there == none


async def test_names_are_compared_as_name_servers_have_them(files: FileServer, looked_up: list[str]) -> None:
    host = ImageHost("xn--bcher-kva.example", may_be_plain=True)
    for number, name in enumerate(("xn--bcher-kva.example", "Bücher.example", "xn--bcher-kva.example.")):
        looked_up.clear()
        files.put(f"/{number}.png", IMAGE, headers=PNG)
        assert b"data:image/png" in await fetched(files.url(f"/{number}.png").replace("127.0.0.1", name), host)
        assert looked_up == ["xn--bcher-kva.example"]


async def test_no_connection_is_another_hosts(files: FileServer, looked_up: list[str]) -> None:
    """Of TLS it would have the certificate of the first name."""
    other = files.url("/a.png").replace("127.0.0.1", "images.example")
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (files.url("/a.png"), other)]
    body = httpx.Request("POST", "/", json={"messages": [{"role": "user", "content": parts}]}).read()
    await RemoteImages((HERE, ImageHost("images.example", may_be_plain=True)), MAX_BODY).put_into(body)
    one, two = files.seen
    assert one.port != two.port


async def test_so_many_are_fetched_at_once_and_the_next_one_may_come_again(files: FileServer) -> None:
    files.put("/slow.png", IMAGE, headers=PNG)
    files.trick("/slow.png", Trick(stalls_at=20))
    images = RemoteImages((HERE,), MAX_BODY, wait_s=0.05, max_fetches=1)
    slow, other = [httpx.Request("POST", "/", json=asking(files.url(path))).read() for path in ("/slow.png", "/a.png")]
    fetching = asyncio.create_task(images.put_into(slow))
    await wait_until(lambda: files.gets("/slow.png"), what="the first is being fetched")
    with pytest.raises(ImageFetchesFull, match=r"within 0\.05 s") as caught:
        await images.put_into(other)
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 1)
    assert files.gets("/a.png") == []
    files.go_on.set()
    for one in (fetching, images.put_into(other)):
        assert b"data:image/png" in await one


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
