"""A client process of the chaos run: keeps a number of streams going and judges every one of them.

It reads an `Order` as JSON from standard input and prints a `Tally` a line every second, the last one when all is
over; on SIGTERM it asks for nothing new. A client does what Paddler's documentation tells it to: a refusal with 503
before the stream began is tried again, a stream whose balancer was lost or leaves is resumed on another one.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time

import msgspec
import uvloop
from msgspec import Struct

from paddler.store.client import connect
from tests.chaos.checking import Checker, Ended
from tests.chaos.sse import BROKEN, Address, Response, request
from tests.chaos.tally import Order, Tally
from tests.chaos.traffic import Ask, Traffic

TRY_AGAIN_S = 0.2
TICK_S = 0.25
CHECK_PATIENCE_S = 60.0
GO_ON_ELSEWHERE = ("queue_unavailable", "shutting_down")


class Chunk(Struct):
    class Choice(Struct):
        class Delta(Struct):
            content: str = ""

        delta: Delta

    choices: list[Choice] = []
    error: dict[str, object] | None = None


_decode = msgspec.json.Decoder(Chunk).decode


class Stream:
    """One request as its client sees it, over as many connections as it takes."""

    def __init__(self, ask: Ask, key: str) -> None:
        self.ask = ask
        self.key = key
        self.request_id = ""
        self.text = ""
        self.last_event_id = ""
        self.error: dict[str, object] | None = None
        self.is_over = False

    async def read(self, response: Response) -> None:
        """Raises one of `BROKEN` when it breaks off."""
        async for event_id, data in response.events():
            if data == b"[DONE]":
                self.is_over = True
                return
            chunk = _decode(data)
            self.last_event_id = event_id or self.last_event_id
            if chunk.error is not None:
                if chunk.error.get("code") in GO_ON_ELSEWHERE:
                    raise EOFError
                self.error = chunk.error
            for choice in chunk.choices:
                self.text += choice.delta.content
        raise EOFError


class Producer:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._chance = random.Random(order.seed)
        self._traffic = Traffic(self._chance, order.name, mean_tokens=order.mean_tokens)
        self._store = connect(order.redis_url, order.prefix)
        self.tally = Tally()
        self._checker = Checker(self._store, self.tally, may_forget=order.may_forget)
        self._addresses = [Address("127.0.0.1", port) for port in order.ports]
        self._num_left = order.requests
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell_loop())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._wind_up)
        poisoning = asyncio.create_task(self._poison_loop())
        await asyncio.gather(*(self._keep_asking() for _ in range(self._order.streams)))
        poisoning.cancel()
        await asyncio.gather(*self._tasks)
        end = time.monotonic() + CHECK_PATIENCE_S
        while self._checker.num_waiting and time.monotonic() < end:
            await self._checker.run_once()
            await asyncio.sleep(TICK_S)
        self._checker.give_up()
        telling.cancel()
        await self._store.close()
        self._tell()

    def _wind_up(self) -> None:
        self._num_left = 0
        self.tally.is_all_sent = True

    async def _keep_asking(self) -> None:
        while self._num_left > 0:
            self._num_left -= 1
            self.tally.is_all_sent = self._num_left == 0
            await self._settle(self._traffic.next())

    async def _poison_loop(self) -> None:
        """One in the beginning, so that a short run has it, and then at random."""
        while self._order.poisons_s:
            self.tally.count("poison sent")
            task = asyncio.create_task(self._settle(self._traffic.poison()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._chance.expovariate(self._order.poisons_s))

    async def _tell_loop(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._checker.run_once()
            self._tell()

    def _tell(self) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(self.tally) + b"\n")
        sys.stdout.buffer.flush()

    async def _settle(self, ask: Ask) -> None:
        """Ask until there is an outcome, and judge it."""
        self.tally.count("sent")
        stream = Stream(ask, f"{self._order.name}-{self._chance.getrandbits(64):x}")
        try:
            async with asyncio.timeout(self._order.patience_s):
                await self._follow(stream)
        except TimeoutError:
            self.tally.violate(f"{stream.request_id or 'unnamed'}: no end within {self._order.patience_s} s")
            return
        self._judge(stream)
        if stream.request_id:
            is_ok = stream.error is None and stream.text == ask.expected[1]
            self._checker.put(Ended(stream.request_id, ask, is_ok))

    async def _follow(self, stream: Stream) -> None:
        addresses = self._chance.sample(self._addresses, len(self._addresses))
        for tried in range(10_000):
            address = addresses[tried % len(addresses)]
            try:
                await self._try(stream, address)
            except BROKEN:
                if stream.is_over:
                    return
                self.tally.count("connections broken")
            if stream.is_over:
                return
            await asyncio.sleep(TRY_AGAIN_S)

    async def _try(self, stream: Stream, address: Address) -> None:
        if stream.request_id:
            headers = {"last-event-id": stream.last_event_id} if stream.last_event_id else {}
            if not stream.last_event_id:
                stream.text = ""  # nothing has a place in the stream: it is read from the beginning
            path = f"/v1/requests/{stream.request_id}/stream"
            async with request(address, "GET", path, headers) as response:
                if response.status == 200:
                    self.tally.count("resumed")
                    await stream.read(response)
                else:
                    await self._refused(stream, response)
            return
        headers = {"idempotency-key": stream.key}
        async with request(address, "POST", "/v1/chat/completions", headers, stream.ask.body) as response:
            if response.status == 200:
                stream.request_id = response.headers["x-request-id"]
                await stream.read(response)
            else:
                await self._refused(stream, response)

    async def _refused(self, stream: Stream, response: Response) -> None:
        error = msgspec.json.decode(await response.body())["error"]
        if error["code"] in GO_ON_ELSEWHERE:
            self.tally.count(f"tried again after {error['code']}")
            return
        stream.error = error
        stream.is_over = True
        stream.request_id = stream.request_id or response.headers.get("x-request-id", "")

    def _judge(self, stream: Stream) -> None:
        expected = stream.ask.expected[1]
        who = stream.request_id or "unnamed"
        if stream.error is None:
            if stream.text != expected:
                self.tally.violate(f"{who}: {stream.text!r} instead of {expected!r}")
            elif stream.ask.is_poison:
                self.tally.violate(f"{who}: a poison request has succeeded")
            self.tally.count("done")
            return
        code = str(stream.error.get("code"))
        if not expected.startswith(stream.text):
            self.tally.violate(f"{who}: {stream.text!r}, then {code}, instead of {expected!r}")
        if code == "agents_lost":
            self.tally.count("dead, poison" if stream.ask.is_poison else "dead, innocent")
            if not stream.ask.is_poison:
                self.tally.violate(f"{who}: an innocent request was given up after {len(stream.text.split())} words")
            return
        self.tally.count(f"failed, {code}")
        # Nobody is left who knows a request whose balancer was killed and which Redis forgot.
        is_forgotten = code in ("request_lost", "queue_unavailable", "request_not_found")
        if not (self._order.may_forget and is_forgotten):
            self.tally.violate(f"{who}: failed with {stream.error}")


async def run(order: Order) -> None:
    await Producer(order).run()


def main() -> None:
    uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))


if __name__ == "__main__":
    main()
