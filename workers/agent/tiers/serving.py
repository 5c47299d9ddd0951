"""What other agents may have of this one's saved states (`block_stream.py`), on `--kv-addr`, in the agent's event loop.

Nothing of it may hold up a token: blocks are got and packed in a thread, one at a time for all who ask, so that they
take turns block by block; they are written in pieces, after each of which the loop does what else there is; and all
together they get no more bytes a second than leave a machine its memory's bandwidth.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.settings import Address
from workers.agent.passing_thread import in_passing_thread
from workers.agent.tiers.block_stream import END, MAX_BODY, PATH, decode_names, length_of
from workers.agent.tiers.passes import SCHEME, Passes

MAX_ANSWERS = 4
"""At a time; who comes then is told to look elsewhere (503)."""
MAX_CONNECTIONS = 64
MAX_EACH = 16
"""Connections from one address, on which several agents may be: nobody alone has them all."""
PIECE = 256 * 1024
"""Bytes written at once: a tenth of a millisecond of the loop."""
MAX_BYTES_PER_S = 512 * 1024 * 1024
BODY_S = 5.0
ANSWER_S = 30.0
"""An answer that its reader does not take ends."""

Lend = Callable[[bytes], bytes | None]
"""The packed block of a name, None where it is not here. Called from threads."""

log = get_logger(__name__)


class BlockApp:
    """The ASGI application. `lend` is what it gives away now, None: nothing; `now_s` the time by which passes are
    looked at."""

    def __init__(self, passes: Passes, clock: Clock, now_s: Callable[[], float]) -> None:
        self.lend: Lend | None = None
        self.url = ""
        """Where other agents find it, as they are told; passes are for that."""
        self.asked_at: deque[float] = deque(maxlen=1024)
        """When answers were begun, of the monotonic clock."""
        self._passes = passes
        self._clock = clock
        self._now_s = now_s
        self._num_answering = 0
        self._lending: set[object] = set()
        """Calls of `lend`: one after the other, by the turn, and beside it those that are late."""
        self._turn = asyncio.Lock()
        self._free_at = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != PATH:
            await _refuse(send, 404, f"there is {PATH} alone")
            return
        if scope["method"] != "POST":
            await _refuse(send, 405, "POST names")
            return
        try:
            async with asyncio.timeout(BODY_S):
                body = await _read(receive)
        except TimeoutError:
            return
        if body is None:
            await _refuse(send, 413, f"at most {MAX_BODY} bytes")
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        refusal = self._passes.check(header.decode("latin-1"), self.url, body, self._now_s())
        if refusal is not None:
            log.warning("refused to give blocks", why=refusal, client=scope.get("client"))
            await _refuse(send, 401, refusal)
            return
        try:
            names = decode_names(body)
        except ValueError as error:
            await _refuse(send, 400, str(error))
            return
        if self._num_answering >= MAX_ANSWERS:
            await _refuse(send, 503, "others are being answered")
            return
        self._num_answering += 1
        self.asked_at.append(self._clock.monotonic())
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._answer(names, send)
        finally:
            self._num_answering -= 1

    @property
    def is_answering(self) -> bool:
        return self._num_answering > 0

    async def _answer(self, names: list[bytes], send: Any) -> None:
        await send(_start(200, b"application/octet-stream"))
        for name in names:
            async with self._turn:
                packed = await self._lent(name)
            if not packed:
                break
            await send(_body(length_of(packed), is_more=True))
            view = memoryview(packed)
            for at in range(0, len(view), PIECE):
                await self._pace(min(PIECE, len(view) - at))
                await send(_body(bytes(view[at : at + PIECE]), is_more=True))
        await send(_body(END, is_more=False))

    async def _lent(self, name: bytes) -> bytes | None:
        """In a thread that does not hold up the end of the process. A disk that hangs is left to those few that wait
        for it already: their answers end, but their threads do not."""
        lend = self.lend
        if lend is None or len(self._lending) >= MAX_ANSWERS:
            return None
        this = object()

        def work() -> bytes | None:
            try:
                return lend(name)
            finally:
                self._lending.discard(this)

        self._lending.add(this)
        return await in_passing_thread(work)

    async def _pace(self, num_bytes: int) -> None:
        """Each piece has its time on a clock that all answers share."""
        now = self._clock.monotonic()
        self._free_at = max(self._free_at, now) + num_bytes / MAX_BYTES_PER_S
        await self._clock.sleep(max(0.0, self._free_at - num_bytes / MAX_BYTES_PER_S - now))


class BlockServer:
    """Listens from `start` to `close`."""

    def __init__(self, app: BlockApp, address: Address) -> None:
        """Raises `OSError` where nobody can listen."""
        self.app = app
        self._listener = _listen(address)
        config = uvicorn.Config(
            app,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=_Connection,
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve([self._listener]))

    async def close(self) -> None:
        """What is being sent ends here."""
        self._server.should_exit = self._server.force_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving})
        self._listener.close()


class _Connection(HttpToolsProtocol):
    """Of one request, which has to come soon: who says nothing takes nobody's place for long."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        clients = [other.client for other in self.connections if isinstance(other, _Connection)]
        host = self.client[0] if self.client else None
        if sum(client is not None and client[0] == host for client in clients) > MAX_EACH:
            transport.abort()
            return
        self._timer = self.loop.call_later(BODY_S, self._end_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _end_if_silent(self) -> None:
        cycle: Any = self.cycle  # None until a request has come
        if cycle is None:
            self.transport.abort()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # they are the agent's


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=128)


async def _read(receive: Any) -> bytes | None:
    """None: it is too long."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


def _start(status: int, kind: bytes) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", kind), (b"connection", b"close")],
    }


def _body(data: bytes, *, is_more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": is_more}


async def _refuse(send: Any, status: int, why: str) -> None:
    start = _start(status, b"text/plain; charset=utf-8")
    if status == 401:
        start["headers"].append((b"www-authenticate", SCHEME.encode()))
    await send(start)
    await send(_body(f"{why}\n".encode(), is_more=False))
