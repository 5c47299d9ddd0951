"""What a client may hold without using it: raw sockets, and clients that never finish what they begin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import httpx
import pytest
from http_harness import HandAgent, HttpBalancer, chat, open_raw

from api.bounds import IDLE_S, MAX_HEAD, MIN_RATE, PATIENCE_S, BoundedConnection
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
UNFINISHED = {
    "nothing": b"",
    "empty lines": b"\r\n\r\n",
    "a method": b"PO",
    "headers": HEAD + b"x-slow: ",
    "a body": HEAD + b'content-length: 1000\r\n\r\n{"model"',
    "chunks": HEAD + b'transfer-encoding: chunked\r\n\r\n8\r\n{"model"\r\n',
    "a chunk's size": HEAD + b"transfer-encoding: chunked\r\n\r\n1",
    "a body for nobody": b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n",
    "a body that is too large": HEAD + b"content-length: 1000000000\r\n\r\n{",
    "what nobody promised to read": b"GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n",
}


async def connect(balancer: HttpBalancer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = httpx.URL(balancer.url())
    return await asyncio.open_connection(address.host, address.port, limit=1 << 22)


def later(balancer: HttpBalancer, seconds: float) -> None:
    """What the service does about its connections when so much time has passed."""
    balancer.service().end_overdue(asyncio.get_running_loop().time() + seconds)


async def answer_to(balancer: HttpBalancer, pieces: Sequence[bytes]) -> bytes:
    """All that the server says before it closes. What it does not read any more makes the end a reset, which may take
    its words with it."""
    reader, writer = await connect(balancer)
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        while data := await asyncio.wait_for(reader.read(1 << 16), 10):
            received += data
    writer.close()
    return bytes(received)


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED.keys())
async def test_what_never_ends_is_ended(balancer: HttpBalancer, sent: bytes) -> None:
    reader, writer = await connect(balancer)
    writer.write(sent)
    await wait_until(lambda: balancer.num_connections() == 1)
    if b"nowhere" in sent or b"health" in sent or b": 1000000000" in sent:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith((b"HTTP/1.1 404", b"HTTP/1.1 200", b"HTTP/1.1 413"))
    else:
        await asyncio.sleep(0.05)
    has_begun = sent not in (b"", b"\r\n\r\n")
    patience_s = PATIENCE_S if has_begun else IDLE_S
    later(balancer, patience_s - 2)
    assert balancer.num_connections() == 1
    later(balancer, patience_s + 2)
    await asyncio.wait_for(reader.read(-1), 5)
    await wait_until(lambda: balancer.num_connections() == 0)
    assert await balancer.demand() == 0
    writer.close()


@pytest.mark.parametrize(("what", "drop"), [("headers", b"x"), ("a body", b" "), ("chunks", b"")])
async def test_a_client_that_dribbles_is_told_why(
    balancer: HttpBalancer, monkeypatch: pytest.MonkeyPatch, what: str, drop: bytes
) -> None:
    """For real, once: a byte now and then buys no time worth mentioning."""
    monkeypatch.setattr("api.bounds.PATIENCE_S", 0.4)
    reader, writer = await connect(balancer)
    writer.write(UNFINISHED[what])

    async def dribble() -> None:
        while True:
            writer.write(drop)
            await asyncio.sleep(0.02)

    dribbling = asyncio.create_task(dribble())
    answer = b""
    # What is written while the other side closes resets the connection.
    with contextlib.suppress(ConnectionResetError):
        while piece := await asyncio.wait_for(reader.read(4096), 10):
            answer += piece
    dribbling.cancel()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1
    await wait_until(lambda: balancer.num_tasks() == 0)
    writer.close()


async def test_a_body_that_comes_steadily_has_its_time(balancer: HttpBalancer) -> None:
    _, writer = await connect(balancer)
    writer.write(HEAD + b"content-length: 60000\r\n\r\n" + b" " * 50_000)
    (connection,) = await wait_until(lambda: list(balancer.service().server_state.connections))
    assert isinstance(connection, BoundedConnection)
    await wait_until(lambda: connection._num_received >= 50_000)
    now_s = asyncio.get_running_loop().time()
    assert not connection.is_overdue(now_s + PATIENCE_S + 1)
    assert connection.is_overdue(now_s + PATIENCE_S + 50_000 / MIN_RATE + 1)
    writer.close()


async def test_who_waits_in_the_buffer_or_reads_a_stream_is_left_alone(
    balancer: HttpBalancer, agent: HandAgent
) -> None:
    reader, writer = await open_raw(balancer.url(), chat(stream=True))
    await wait_until(lambda: balancer.num_tasks() == 1)
    later(balancer, 100_000)
    request = await agent.take()
    later(balancer, 100_000)
    await request.say("hello")
    await reader.readuntil(b"hello")
    # The next request, of which only a part is there, waits for the answer to this one and not the other way round.
    writer.write(HEAD)
    await asyncio.sleep(0.05)
    later(balancer, 100_000)
    await request.finish()
    await reader.readuntil(b"[DONE]")
    await reader.readuntil(b"0\r\n\r\n")
    later(balancer, PATIENCE_S + 2)
    assert (await reader.read(-1)).startswith(b"HTTP/1.1 408")
    writer.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"x-large: " + b"x" * MAX_HEAD + b"\r\n\r\n"],
        [HEAD, *[b"x-%d: %b\r\n" % (number, b"x" * 1000) for number in range(100)]],
        [HEAD + b"x-endless: ", *[b"x" * 1000] * 200],
        [b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
    ],
    ids=["one", "many", "endless", "path"],
)
async def test_headers_that_are_too_large(balancer: HttpBalancer, pieces: list[bytes]) -> None:
    answer = await answer_to(balancer, pieces)
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n") or (not answer and len(pieces) > 1)
    await wait_until(lambda: balancer.num_connections() == 0)


async def test_large_headers_are_no_trouble(balancer: HttpBalancer) -> None:
    async with balancer.http() as http:
        headers = {f"x-{number}": "x" * 1000 for number in range(50)}
        assert (await http.get("/health", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: te\x00st\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ],
    ids=["tls", "path", "nul", "length", "both lengths", "chunk"],
)
async def test_what_is_no_http(balancer: HttpBalancer, sent: bytes) -> None:
    answer = await answer_to(balancer, [sent])
    assert answer.startswith(b"HTTP/1.1 400")
    await wait_until(lambda: balancer.num_connections() == 0)
    assert await balancer.demand() == 0


async def test_no_garbage_gets_into_an_answer(balancer: HttpBalancer, agent: HandAgent) -> None:
    reader, writer = await open_raw(balancer.url(), chat(stream=True))
    request = await agent.take()
    await request.say("hello")
    before = await reader.readuntil(b"hello")
    writer.write(b"\x00nonsense\r\n\r\n")
    after = await reader.read(-1)
    assert b"HTTP/1.1" not in (before + after)[1:]
    await request.cancelled()
    writer.close()


async def test_pipelined_requests_are_answered_in_order(balancer: HttpBalancer, agent: HandAgent) -> None:
    reader, writer = await open_raw(balancer.url(), chat("first", stream=True))
    writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n")
    request = await agent.take()
    await request.say("hello")
    await request.finish()
    await reader.readuntil(b"data: [DONE]\n\n")
    assert b"200 OK" in await reader.readuntil(b"OK\r\n")
    assert await reader.readuntil(b"\r\nOK") != b""
    assert b"404" in await reader.readuntil(b"\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_that_pipelines_and_leaves_is_noticed(balancer: HttpBalancer, stream: bool) -> None:
    _, writer = await open_raw(balancer.url(), chat("first", stream=stream))
    await wait_until(balancer.num_waiting)
    writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3)
    await asyncio.sleep(0.05)
    writer.close()
    await wait_until(balancer.is_idle, timeout_s=5)
