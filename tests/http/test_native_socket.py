"""The inference socket: many requests share it, and neither a bad message, nor one that stops, nor a slow reader hurts
the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from balancer_process import StartBalancer
from fleet_harness import Fleet
from http_harness import HandAgent, HttpBalancer, NewAgent, NewBalancer
from native_harness import RawSocket, Told, conversation, inference, params, raw_socket
from paddler_client.continue_from_raw_prompt_params import ContinueFromRawPromptParams
from paddler_client.error import ConnectionDroppedError
from paddler_client.inference_message import InferenceMessageKind as Kind
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.web_sockets import WebSockets
from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.wire.balancer import Tokens

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(store: Store) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        yield fleet
        await fleet.close()


@pytest.fixture
async def sock(balancer: HttpBalancer) -> AsyncIterator[RawSocket]:
    async with raw_socket(balancer.url()) as sock:
        yield sock


async def closed(sock: RawSocket) -> int | None:
    """Wait for the end of the connection: its code."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await sock.connection.recv()
    return sock.connection.close_code


async def test_the_official_client(balancer: HttpBalancer, fleet: Fleet) -> None:
    """Fifty requests on its four sockets, conversations and raw prompts."""
    await fleet.agent(slots=8)
    async with inference(balancer.url()) as client:

        async def ask(number: int) -> str:
            text = f"[[say=answer {number} {'.' * 30}]]"
            if number % 2:
                stream = await client.continue_from_raw_prompt(
                    ContinueFromRawPromptParams(max_tokens=200, raw_prompt=text)
                )
            else:
                stream = await client.continue_from_conversation_history(conversation(text))
            told = await Told().listen(stream)
            assert told.last.is_done
            return told.text(Kind.UNDETERMINABLE_TOKEN if number % 2 else Kind.CONTENT_TOKEN)

        answers = await asyncio.gather(*map(ask, range(30)))
    assert answers == [f"answer {number} {'.' * 30}" for number in range(30)]


async def test_fifty_on_a_socket_and_one_is_stopped(new_balancer: NewBalancer, fleet: Fleet) -> None:
    balancer = await new_balancer(max_buffered_requests=100)
    await fleet.agent(slots=25, step_s=0.002)
    async with raw_socket(balancer.url()) as sock:
        for number in range(49):
            await sock.ask(f"r{number}", f"[[say=number {number} {'.' * 60}]]")
        await sock.ask("endless", "[[tokens=5000]]", max_tokens=5000)
        texts: dict[str, str] = {}
        num_done = 0
        is_stopped = False
        while num_done < 49:
            request_id, result = await sock.result()
            ((kind, value),) = result.items()
            if request_id == "endless" and not is_stopped:
                is_stopped = True
                await sock.stop("endless")
            num_done += kind == "Done"
            if kind != "Done":
                texts[request_id] = texts.get(request_id, "") + value
        # It may not have been begun before the others were done.
        if not is_stopped:
            await sock.stop("endless")
        texts.pop("endless", None)
        assert texts == {f"r{number}": f"number {number} {'.' * 60}" for number in range(49)}
        await wait_until(fleet.is_idle)
        # Its id is free, and nothing more was said of it.
        await sock.ask("endless", "[[say=again]]")
        assert (await sock.texts(1))["endless"].endswith("again")


async def test_a_stopped_request_that_waits_leaves_the_buffer(balancer: HttpBalancer, sock: RawSocket) -> None:
    await sock.ask("a", "hi")

    async def one_waits() -> bool:
        return await balancer.num_waiting() == 1

    await wait_until(one_waits)
    await sock.stop("a")
    await sock.stop("nobody")
    await wait_until(balancer.is_idle)


@pytest.mark.parametrize(
    ("message", "request_id", "words"),
    [
        ("{", "", "not valid JSON"),
        ("[]", "", "must be a JSON object"),
        ("{}", "", "one of Request, Notification and Error"),
        (b"\x00\x01", "", "binary messages are not read"),
        ('{"Request": {"id": "b"}}', "b", "`Request.request` is required"),
        ('{"Request": {"id": 5, "request": {}}}', "", "`Request.id`"),
        ('{"Request": {"id": "b", "request": {}}}', "b", "must be one of ContinueFromConversationHistory"),
        ('{"Request": {"id": "b", "request": {"GenerateEmbeddingBatch": {}}}}', "b", "Unknown field"),
        ('{"Request": {"id": "b", "request": {"ContinueFromRawPrompt": {}}}}', "b", "`max_tokens` is required"),
        ('{"Request": {"id": "b", "request": {"ContinueFromRawPrompt": 5}}}', "b", "must be a JSON object"),
        ('{"Notification": "x"}', "", "`Notification`"),
        ("[" * 5000, "", "Invalid request parameters"),
        ('{"Request": {"id": "b", "x": "' + "y" * 20_000 + '"}}', "b", "Unknown field `Request.x`"),
    ],
)
async def test_a_bad_message_is_answered_and_hurts_nobody(
    sock: RawSocket, agent: HandAgent, message: str | bytes, request_id: str, words: str
) -> None:
    await sock.ask("good", "hi")
    request = await agent.take()
    await request.say("one")
    assert await sock.result() == ("good", {"ContentToken": "one"})
    await sock.send(message)
    found, code, description = await sock.error()
    assert (found, code) == (request_id, 400)
    assert words in description
    await request.say("two")
    await request.finish()
    assert await sock.result() == ("good", {"ContentToken": "two"})
    assert "Done" in (await sock.result())[1]


async def test_a_tool_that_cannot_be_enforced_hurts_nobody(sock: RawSocket, agent: HandAgent) -> None:
    await sock.ask("good", "hi")
    request = await agent.take()
    schema = {"type": "object", "properties": {}, "required": ["x"]}
    function = {"name": "f", "description": "", "parameters": schema}
    await sock.ask("bad", "hi", tools=[{"type": "function", "function": function}])
    assert await sock.error() == (
        "bad",
        400,
        "Invalid request parameters: Required field 'x' not found in properties (`tools[0].function.parameters`)",
    )
    await request.say("one")
    assert await sock.result() == ("good", {"ContentToken": "one"})
    await sock.ask("grammar", "hi", grammar={"type": "gbnf", "grammar": "root ::= (", "root": "root"})
    request_id, result = await sock.result()
    assert (request_id, list(result)) == ("grammar", ["GrammarSyntaxError"])
    await request.finish()


async def test_an_id_in_flight_is_refused(sock: RawSocket, agent: HandAgent) -> None:
    await sock.ask("a", "hi")
    request = await agent.take()
    await sock.ask("a", "hi")
    assert await sock.error() == ("a", 400, 'Request id "a" is already in flight on this connection')
    await request.say("one")
    await request.finish()
    assert await sock.result() == ("a", {"ContentToken": "one"})
    assert "Done" in (await sock.result())[1]
    # As soon as it is done the id is free.
    await sock.ask("a", "hi")
    await (await agent.take()).finish()
    assert "Done" in (await sock.result())[1]


async def test_a_connection_has_only_so_many_requests(
    sock: RawSocket, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.native.socket.MAX_IN_FLIGHT", 2)
    for request_id in "abc":
        await sock.ask(request_id, "hi")
    assert (await sock.error())[:2] == ("c", 429)
    await (await agent.take()).finish()
    assert "Done" in (await sock.result())[1]
    await sock.ask("c", "hi")
    for _ in range(2):
        await (await agent.take()).finish()
        assert "Done" in (await sock.result())[1]


async def test_an_error_of_the_client_is_no_message(sock: RawSocket, agent: HandAgent) -> None:
    await sock.send({"Error": {"request_id": "a", "error": {"code": 1, "description": "x"}}})
    await sock.ask("a", "hi")
    await (await agent.take()).finish()
    assert "Done" in (await sock.result())[1]


async def test_overload_is_an_error_of_one(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    balancer = await new_balancer(max_buffered_requests=0)
    agent = await new_agent()
    async with raw_socket(balancer.url()) as sock:
        await sock.ask("a", "hi")
        request = await agent.take()
        await sock.ask("b", "hi")
        assert await sock.error() == ("b", 503, "Buffered requests overflow")
        await request.finish()
        assert "Done" in (await sock.result())[1]


@pytest.mark.parametrize("is_abrupt", [False, True])
async def test_the_end_of_a_socket_cancels_all_of_it(
    balancer: HttpBalancer, new_agent: NewAgent, is_abrupt: bool
) -> None:
    """Those that run and those that wait; another connection's go on."""
    agent = await new_agent(slots=3)
    async with raw_socket(balancer.url()) as other:
        await other.ask("a", "other")
        kept = await agent.take()
        async with raw_socket(balancer.url()) as sock:
            for number in range(6):
                await sock.ask(f"r{number}", "hi")
            requests = [await agent.take() for _ in range(2)]

            async def four_wait() -> bool:
                return await balancer.num_waiting() == 4

            await wait_until(four_wait)
            if is_abrupt:
                sock.connection.transport.abort()
        for request in requests:
            await request.cancelled()

        async def one_is_left() -> bool:
            return await balancer.demand() == 1

        await wait_until(one_is_left)
        await kept.say("still here")
        assert await other.result() == ("a", {"ContentToken": "still here"})
        await kept.finish()


async def test_a_slow_reader_is_waited_for(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    """What it does not take stays in Redis: the balancer keeps a bounded part. Then everything comes, in order."""
    agent = await new_agent(slots=2)
    piece = "x" * 100_000
    address = httpx.URL(balancer.url())
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    async with raw_socket(balancer.url(), sock=sock, max_queue=1, max_size=None) as slow:
        await slow.ask("a", "hi")
        request = await agent.take()
        num_pieces = 200
        for number in range(num_pieces):
            await request.emit(Tokens((1,), f"{number}{piece}"))
        await request.finish()
        # Another connection is not slow because of it.
        async with raw_socket(balancer.url()) as other:
            await other.ask("a", "hi")
            quick = await agent.take()
            await quick.say("quick")
            assert await other.result() == ("a", {"ContentToken": "quick"})
            await quick.finish()
        # Beside the mailbox there is what the system takes for a connection, a few MiB.
        [mailbox] = [one for one in balancer.gateway._inbox.mailboxes() if one.request_id == request.request_id]
        assert mailbox._num_pending < 2 << 20
        assert mailbox.offset < num_pieces * len(piece) / 2
        texts: list[str] = []
        while "Done" not in (result := (await slow.result())[1]):
            texts.append(result["ContentToken"])
        assert "".join(texts) == "".join(f"{number}{piece}" for number in range(num_pieces))


@pytest.mark.parametrize("size", [70_000, 20_000_000])
async def test_a_message_that_is_too_large_closes_the_socket(
    balancer: HttpBalancer, agent: HandAgent, size: int
) -> None:
    """Its client hears why even while it is still writing."""
    async with raw_socket(balancer.url()) as sock:
        await sock.ask("a", "hi")
        request = await agent.take()
        with contextlib.suppress(ConnectionClosed):
            await sock.send("x" * size)
        assert await closed(sock) == 1009
        await request.cancelled()
    await wait_until(balancer.is_idle)


async def test_text_that_is_no_unicode_closes_the_socket(sock: RawSocket) -> None:
    await sock.connection.send(b"\xff\xfe", text=True)
    assert await closed(sock) == 1007


async def test_a_client_that_answers_no_ping_is_given_up(new_balancer: NewBalancer, new_agent: NewAgent) -> None:
    """Its requests are cancelled; whoever answers may be silent for as long as it likes."""
    limits = WebSockets(60_000, ping_interval_s=0.1, ping_timeout_s=0.5)
    balancer = await new_balancer(web_sockets=limits)
    agent = await new_agent(slots=2)
    async with raw_socket(balancer.url()) as alive, raw_socket(balancer.url()) as dead:
        await alive.ask("a", "hi")
        kept = await agent.take()
        await dead.ask("a", "hi")
        request = await agent.take()
        dead.connection.transport.pause_reading()
        await request.cancelled()
        await kept.say("still here")
        assert await alive.result() == ("a", {"ContentToken": "still here"})
        await kept.finish()
        dead.connection.transport.resume_reading()
        assert await closed(dead) == 1011


async def test_a_stopping_balancer_says_why(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with raw_socket(balancer.url()) as sock, raw_socket(balancer.url()) as idle:
        await sock.ask("a", "hi")
        request = await agent.take()
        await request.say("one")
        assert await sock.result() == ("a", {"ContentToken": "one"})
        balancer.gateway.stop_accepting()
        assert await sock.error() == ("a", 503, "balancer is shutting down")
        assert await closed(sock) == await closed(idle) == 1001
        assert sock.connection.close_reason == "Server shutting down"
    await request.cancelled()


async def test_a_process_that_is_stopped_says_why(start: StartBalancer, store: Store, new_agent: NewAgent) -> None:
    balancer = await start(store, "--cancel-on-stop")
    agent = await new_agent()
    async with raw_socket(balancer.addresses["inference"]) as sock:
        await sock.ask("a", "hi")
        request = await agent.take()
        await request.say("one")
        assert await sock.result() == ("a", {"ContentToken": "one"})
        balancer.process.terminate()
        assert await sock.error() == ("a", 503, "balancer is shutting down")
        assert await closed(sock) == 1001
        await request.cancelled()
    assert await balancer.process.wait() == 0


async def test_the_official_client_hears_of_the_end(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with inference(balancer.url(), socket_pool_size=1) as client:
        stream = await client.continue_from_conversation_history(conversation("hi"))
        request = await agent.take()
        await request.say("one")
        assert (await anext(stream)).token == "one"
        balancer.gateway.stop_accepting()
        last = await anext(stream)
        assert (last.error_code, last.error_message) == (503, "balancer is shutting down")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    await request.cancelled()


async def test_the_official_client_hears_of_a_lost_connection(balancer: HttpBalancer, agent: HandAgent) -> None:
    """And connects anew for what it is asked next."""
    async with inference(balancer.url(), socket_pool_size=1) as client:
        stream = await client.continue_from_conversation_history(conversation("hi"))
        request = await agent.take()
        pool = client._socket_pool
        assert pool is not None
        assert pool._connections[0] is not None
        assert pool._connections[0]._ws is not None
        pool._connections[0]._ws.transport.abort()
        with pytest.raises(ConnectionDroppedError):
            await anext(stream)
        await request.cancelled()
        stream = await client.continue_from_conversation_history(conversation("hi"))
        await (await agent.take()).finish()
        assert (await Told().listen(stream)).last.is_done


async def test_pages_of_other_addresses_are_refused(balancer: HttpBalancer) -> None:
    """A browser asks nobody before it opens a socket, so that any page could use a fleet on loopback."""
    with pytest.raises(InvalidStatus) as refused:
        async with raw_socket(balancer.url(), origin="http://example.org"):
            pass
    assert refused.value.response.status_code == 403
    async with raw_socket(balancer.url(), origin=balancer.url()) as sock:
        await sock.send("{")
        assert (await sock.error())[1] == 400


async def test_only_the_inference_service_has_it(balancer: HttpBalancer) -> None:
    with pytest.raises(InvalidStatus):
        async with raw_socket(balancer.url("management")):
            pass
    async with balancer.http() as http:
        assert (await http.get("/api/v1/inference_socket")).status_code in (404, 405)


async def test_images_of_a_long_message_are_read_in_a_thread(sock: RawSocket, agent: HandAgent) -> None:
    """A later message waits for one that takes long, and finds its request."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
    asked = params("hi", conversation_history=[{"role": "user", "content": [part]}])
    message = {"Request": {"id": "a", "request": {"ContinueFromConversationHistory": asked}}}
    await sock.connection.send(json.dumps(message))
    request_id, result = await sock.result()
    assert (request_id, list(result)) == ("a", ["ImageDecodingFailed"])
