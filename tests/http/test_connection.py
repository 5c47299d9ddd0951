"""`run_while_connected` alone: what ends the work, and what may still happen after that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.connection import Outgoing, run_while_connected
from paddler.clock import SystemClock
from paddler.errors import EngineFailed
from paddler.testing.waiting import wait_until

pytestmark = pytest.mark.anyio


class Client:
    """The server's side of a connection, as ASGI sees it."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.can_read = asyncio.Event()
        self.can_read.set()
        self.sent: list[bytes] = []
        self.out = Outgoing(self.send, SystemClock())

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.can_read.wait()
        self.sent.append(message["body"])
        if not message["more_body"]:
            # As uvicorn does when an answer is complete.
            self.gone.set()


class Chatter:
    def __init__(self, client: Client) -> None:
        self._client = client

    def patience_s(self) -> float:
        return 0.02

    async def break_silence(self) -> None:
        await self._client.out.write(b"still here")


async def turns(count: int = 5) -> None:
    """Let everything else run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_work_cleans_up_after_the_end_of_its_answer() -> None:
    client, steps = Client(), list[str]()

    async def work() -> None:
        await client.out.write(b"all", last=True)
        await turns()
        steps.append("cleaned up")

    await run_while_connected(work(), client.receive, client.out, SystemClock())
    assert steps == ["cleaned up"]


async def test_work_is_cancelled_once_and_its_clean_up_may_await() -> None:
    client, steps = Client(), list[str]()

    async def work() -> None:
        try:
            client.gone.set()
            await asyncio.Event().wait()
        finally:
            await turns()
            steps.append("cleaned up")

    await run_while_connected(work(), client.receive, client.out, SystemClock())
    assert steps == ["cleaned up"]


async def test_the_same_when_the_server_gives_up() -> None:
    client, steps = Client(), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns()
            steps.append("cleaned up")

    running = asyncio.create_task(run_while_connected(work(), client.receive, client.out, SystemClock()))
    await turns()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert steps == ["cleaned up"]


@pytest.mark.parametrize(("error", "is_told"), [(EngineFailed("x"), False), (ValueError("bug"), True)])
async def test_an_error_while_cleaning_up_for_a_client_that_left(error: Exception, is_told: bool) -> None:
    client = Client()

    async def work() -> None:
        try:
            client.gone.set()
            await asyncio.Event().wait()
        finally:
            raise error

    running = run_while_connected(work(), client.receive, client.out, SystemClock())
    if is_told:
        with pytest.raises(ValueError, match="bug"):
            await running
    else:
        await running


async def test_an_error_of_the_work_passes_through() -> None:
    client = Client()

    async def work() -> None:
        raise EngineFailed("x")

    with pytest.raises(EngineFailed):
        await run_while_connected(work(), client.receive, client.out, SystemClock())


async def test_silence_is_broken_again_and_again() -> None:
    client = Client()

    async def work() -> None:
        await wait_until(lambda: len(client.sent) >= 3)
        await client.out.write(b"all", last=True)

    await run_while_connected(work(), client.receive, client.out, SystemClock(), Chatter(client))
    assert client.sent[:3] == [b"still here"] * 3
    assert client.sent[-1] == b"all"


async def test_a_write_that_waits_for_a_slow_client_is_no_silence() -> None:
    client = Client()

    async def work() -> None:
        client.can_read.clear()
        asyncio.get_running_loop().call_later(0.2, client.can_read.set)
        await client.out.write(b"all", last=True)

    await run_while_connected(work(), client.receive, client.out, SystemClock(), Chatter(client))
    assert client.sent == [b"all"]


class Steps(SystemClock):
    """A clock that goes on by less than a `Chatter`'s patience with every write."""

    def __init__(self) -> None:
        self.num_writes = 0

    def monotonic(self) -> float:
        return self.num_writes * 0.015


async def test_an_answer_that_goes_on_is_no_silence() -> None:
    client, clock = Client(), Steps()
    client.out = Outgoing(client.send, clock)

    async def work() -> None:
        for number in range(10):
            clock.num_writes = number
            await client.out.write(b"word")
            await asyncio.sleep(0.03)
        await client.out.write(b"all", last=True)

    await run_while_connected(work(), client.receive, client.out, clock, Chatter(client))
    assert client.sent == [b"word"] * 10 + [b"all"]
