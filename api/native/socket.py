"""`/api/v1/inference_socket`: many requests on one connection, each by what its client calls it.

One task reads, one a request answers. Nothing is queued on the way out: a request writes its next envelope when the
client has taken what is before it, and until then reads no further frame of its own, whose mailbox is bounded and whose
journal stays in Redis. A message that is wrong gets an answer, which costs the other requests nothing. When the
connection ends, for whatever reason, all of its requests are cancelled.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, assert_never

from litestar.exceptions import WebSocketException

from api.access.caller import ANYBODY, Caller
from api.exchange import check_reason
from api.native.calls import Read, read_conversation, read_raw_prompt, receive_call
from api.native.enabled import check_generation
from api.native.envelope import Envelopes
from api.native.errors import INVALID, error_line
from api.native.messages import NotificationMessage, RequestMessage, WrongMessage, receive_message
from api.native.stream import NativeStream
from api.openai.label import encode_label
from api.options import submit_of
from paddler.errors import RequestLost
from paddler.jobs.gateway import DEFAULT_POOL, Gateway, Reply
from paddler.wire.balancer import Answered, Finished, Opened, Tokens, Vectors

MAX_IN_FLIGHT = 1024
"""Requests of one connection."""
GOING_AWAY = 1001
STOP_S = 1.0
"""How long a client that does not read may hold up the words with which a stopping balancer ends its requests."""

_GONE = (OSError, WebSocketException)
"""What a write raises once the client has gone; the task that reads hears of it too."""

ASGISend = Callable[[Any], Awaitable[None]]
ASGIReceive = Callable[[], Awaitable[Any]]


class InferenceSocket:
    """One accepted connection."""

    def __init__(self, gateway: Gateway, send: ASGISend, caller: Caller = ANYBODY) -> None:
        self._gateway = gateway
        self._caller = caller
        self._asgi_send = send
        self._turn = asyncio.Lock()
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def run(self, receive: ASGIReceive) -> None:
        """Until the connection ends; all requests have been left then."""
        stopping = asyncio.create_task(self._close_when_stopping())
        try:
            while (event := await receive())["type"] == "websocket.receive":
                await self._take(event)
        except _GONE:
            pass
        finally:
            stopping.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(stopping, *self._tasks, return_exceptions=True)

    async def _take(self, event: Any) -> None:
        try:
            message = await receive_message(event)
        except WrongMessage as error:
            await self._send(Envelopes(error.request_id).error(400, error.message))
            return
        match message:
            case RequestMessage():
                await self._begin(message)
            case NotificationMessage(StopRespondingTo=request_id):
                if (task := self._in_flight.pop(request_id, None)) is not None:
                    task.cancel()
            case None:
                pass
            case _:
                assert_never(message)

    async def _begin(self, message: RequestMessage) -> None:
        envelopes = Envelopes(message.id)
        if message.id in self._in_flight:
            words = f'Request id "{message.id}" is already in flight on this connection'
            await self._send(envelopes.error(400, words))
            return
        if len(self._tasks) >= MAX_IN_FLIGHT:
            words = f"{MAX_IN_FLIGHT} requests are in flight on this connection, as many as there may be"
            await self._send(envelopes.error(429, words))
            return
        methods = message.request
        asked = [
            partial(self._answer, message.id, envelopes, read, [bytes(params)])
            for read, params in (
                (read_conversation, methods.ContinueFromConversationHistory),
                (read_raw_prompt, methods.ContinueFromRawPrompt),
            )
            if len(memoryview(params))
        ]
        if len(asked) != 1:
            words = "`Request.request` must be one of ContinueFromConversationHistory and ContinueFromRawPrompt."
            await self._send(envelopes.error(400, f"{INVALID}: {words}"))
            return
        task = asyncio.create_task(asked[0]())
        self._in_flight[message.id] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request_id: str, envelopes: Envelopes, read: Read, params: list[bytes]) -> None:
        """`params` are taken out of their list: images may have many megabytes, and are not kept while it runs."""
        try:
            try:
                await self._generate(request_id, envelopes, read, params)
            except _GONE:
                raise
            except Exception as error:
                self._free(request_id)
                timeout_ms = self._gateway.item_timeout_ms
                await self._send(error_line(error, envelopes, timeout_ms, generated_by=None))
        except _GONE:
            pass
        finally:
            self._free(request_id)

    async def _generate(self, request_id: str, envelopes: Envelopes, read: Read, params: list[bytes]) -> None:
        call = await receive_call(read, params.pop(), secrets.randbits(32))
        await check_generation(self._gateway)
        # Its client does not know the id that it could be resumed by.
        how = submit_of(self._caller.renewed(), label=encode_label(call.label), can_be_resumed=False)
        async with await self._gateway.submit(DEFAULT_POOL, call.payload, how) as reply:
            await self._frames(request_id, reply, NativeStream(envelopes, call.label, reply))

    async def _frames(self, request_id: str, reply: Reply, stream: NativeStream) -> None:
        async for frame in reply:
            match frame:
                case Tokens():
                    for envelope in stream.tokens(frame.text):
                        await self._send(envelope)
                case Opened() | Vectors() | Answered():
                    pass
                case Finished():
                    check_reason(frame)
                    *before, done = stream.finished(frame)
                    for envelope in before:
                        await self._send(envelope)
                    self._free(request_id)
                    await self._send(done)
                    return
                case _:
                    assert_never(frame)
        raise RequestLost("Redis lost this request's answer; send it again.")

    def _free(self, request_id: str) -> None:
        """Before its last envelope: whoever has read that may use the id again."""
        if self._in_flight.get(request_id) is asyncio.current_task():
            del self._in_flight[request_id]

    async def _send(self, envelope: bytes) -> None:
        """Waits while the client reads too slowly, in turn with all the others."""
        async with self._turn:
            if self._is_closed:
                raise ConnectionResetError
            try:
                await self._asgi_send({"type": "websocket.send", "text": envelope.decode()})
            except RuntimeError:
                if self._is_closed:  # while it waited for a client that does not read
                    raise ConnectionResetError from None
                raise

    async def _close_when_stopping(self) -> None:
        """The balancer has ended all requests: let them say so, then say why the connection ends."""
        await self._gateway.stopping.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        self._is_closed = True
        await self._asgi_send({"type": "websocket.close", "code": GOING_AWAY, "reason": "Server shutting down"})
