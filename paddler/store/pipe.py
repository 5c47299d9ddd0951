"""Calls of many tasks over one connection: written as they are made, answered in order.

redis-py's client takes a connection out of a pool for each call, which costs four times as much CPU time as the call
itself (140 µs against 30, measured) and a wake-up more. Here redis-py connects (TLS, AUTH, SELECT) and reads; the rest
is a queue of futures. A call whose task is cancelled is answered to nobody; the connection stays.

A lost connection, a late answer, LOADING and READONLY are retried, with jitter: what is sent must be idempotent, as
all scripts are. READONLY also reconnects, as behind the same address there may be another primary by now.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.retry import Retry
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, RedisError, TimeoutError

Value = str | bytes | int | float

RETRIED = (ConnectionError, TimeoutError, ReadOnlyError)
"""What may pass by itself; `BusyLoadingError` is a `ConnectionError`."""


# Declared for tuples of one.
_pack: Callable[[tuple[Value, ...]], bytes] = cast("Any", hiredis).pack_command


def pack(*command: Value) -> bytes:
    return _pack(command)


class PipedConnection(Protocol):
    """What a pipe needs of redis-py's connections."""

    async def connect(self) -> None: ...
    def write(self, packed: bytes) -> None: ...
    async def read_response(self, *, disconnect_on_error: bool) -> Any: ...
    async def disconnect(self, nowait: bool = False) -> None: ...


class Pipe:
    """`timeout_s`: an answer is due after so long, else the connection is given up; None: never. `retry`: redis-py's
    policy for `RETRIED`; None: each call is tried once."""

    def __init__(
        self, make: Callable[[], PipedConnection], *, timeout_s: float | None, retry: Retry | None = None
    ) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self.retry = retry
        self._line: _Line | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        return self._line is not None and self._line.is_open

    async def call(self, *command: Value) -> Any:
        """Send one command and wait for its answer. Raises `RedisError` or `OSError`."""
        packed = pack(*command)
        line = self._line
        if line is not None and line.is_open:
            try:
                return await line.ask(packed)
            except RETRIED:
                if self.retry is None:
                    raise
        if self.retry is None:
            return await self._ask(packed)
        return await self.retry.call_with_retry(lambda: self._ask(packed), self._failed)

    async def close(self) -> None:
        """For good: a call that is under way would else connect again, and nobody would close that."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._line is not None:
            await self._line.close(ConnectionError("closed"))

    async def _ask(self, packed: bytes) -> Any:
        if self._is_closed:
            raise ConnectionError("closed")
        if self._line is None or not self._line.is_open:
            await self._connect()
        assert self._line is not None
        return await self._line.ask(packed)

    async def _failed(self, error: RedisError) -> None:
        """Before each retry."""
        if isinstance(error, ReadOnlyError) and self._line is not None:
            await self._line.close(error)

    async def _connect(self) -> None:
        """One attempt for all who wait for it, also when the first of them is cancelled."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        await asyncio.shield(self._connecting)

    async def _open(self) -> None:
        connection = self._make()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._line = _Line(connection, self._timeout_s)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # whoever waited has seen it; if nobody did, it is no news


class _Line:
    """One connection, and the calls that wait for their answers, the oldest first."""

    def __init__(self, connection: PipedConnection, timeout_s: float | None) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.is_open = True
        self._reader = asyncio.create_task(self._read())

    def ask(self, packed: bytes) -> asyncio.Future[Any]:
        try:
            self._connection.write(packed)
        except ConnectionError as error:
            self._give_up(error)
            self._reader.cancel()
            raise
        future = self._loop.create_future()
        self._waiting.append((future, self._loop.time()))
        if self._timer is None and self._timeout_s is not None:
            self._timer = self._loop.call_later(self._timeout_s, self._check_oldest)
        return future

    async def close(self, error: BaseException) -> None:
        self._give_up(error)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        # A reader that is cancelled before its first turn has cleaned nothing up.
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        error: BaseException = ConnectionError("closed")
        try:
            while True:
                answer: Any = None
                refusal: RedisError | None = None
                try:
                    answer = await self._connection.read_response(disconnect_on_error=False)
                except BusyLoadingError as told:
                    refusal = told
                except (ConnectionError, builtins.TimeoutError):
                    raise
                except RedisError as told:
                    refusal = told
                if not self._waiting:
                    raise ConnectionError("an answer that nobody asked for")
                future, _ = self._waiting.popleft()
                if future.done():
                    continue  # its task was cancelled
                if refusal is None:
                    future.set_result(answer)
                else:
                    future.set_exception(refusal)
        except (RedisError, OSError) as trouble:
            error = trouble
        finally:
            self._give_up(error)
            with contextlib.suppress(RedisError, OSError):
                await self._connection.disconnect(nowait=True)

    def _give_up(self, error: BaseException) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def _check_oldest(self) -> None:
        """One timer a connection: a timer a call would cost as much as the call."""
        self._timer = None
        if not self._waiting:
            return
        assert self._timeout_s is not None
        left = self._waiting[0][1] + self._timeout_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_oldest)
        else:
            self._give_up(TimeoutError("Timeout waiting for an answer of Redis"))
            self._reader.cancel()
