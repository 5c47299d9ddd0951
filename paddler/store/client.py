"""The one module that builds Redis clients, and the timeouts and retries they have.

Scripts go through a pipe (`pipe.py`), large ones through a second, so that 32 MiB of images do not stand before
everybody's tokens; other commands through redis-py's client. A reply is due within 5 s; a lost connection is retried
three times within about a second, because all scripts are idempotent. Blocking reads have a connection of their own
whose replies have more time than they block. Nothing is decoded: payloads and frames are bytes.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import socket
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.asyncio import connection
from redis.asyncio.retry import Retry
from redis.backoff import EqualJitterBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from paddler.store.keys import DEFAULT_PREFIX, PoolKeys, pools_key
from paddler.store.pipe import RETRIED, Pipe, PipedConnection, pack
from paddler.store.scripts import PoolScripts, ScriptCaller
from paddler.store.scripts_batch import BatchScripts
from paddler.store.scripts_lease import LeaseScripts

COMMAND_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 32

TROUBLE = (RedisError, OSError)
"""What a call raises when Redis cannot be reached or refuses; callers turn it into `QueueUnavailable` or retry."""

FAILOVER = (ReadOnlyError, MasterDownError)
"""Refusals of a server that is no primary (any more): as if it could not be reached."""


def is_refusal(error: BaseException) -> bool:
    """Redis is there and said no to this one call; not a server that is no primary, which says no to everything."""
    return isinstance(error, ResponseError) and not isinstance(error, FAILOVER)


_RETRIED = [ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError]
_NUM_RETRIES = 3
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}


class Store:
    """A Redis server as Paddler sees it: a client for commands, and one pool's keys and scripts on demand."""

    def __init__(self, url: str, prefix: str = DEFAULT_PREFIX) -> None:
        self.url = url
        self.prefix = prefix
        # Any: redis-py types each command as "sync or async", which no checker can await.
        self.redis: Any = self._client(COMMAND_TIMEOUT_S, retries=_NUM_RETRIES, max_connections=MAX_CONNECTIONS)
        self.pipe, self._bulk = self._new_pipe(), self._new_pipe()
        self._caller = ScriptCaller(self.pipe, self._bulk)
        self.batch_scripts = BatchScripts(self._caller)
        self.leases = LeaseScripts(self._caller)
        self._pools: dict[str, PoolScripts] = {}
        self._extra: list[Any] = []

    def pool(self, name: str) -> PoolScripts:
        if name not in self._pools:
            self._pools[name] = PoolScripts(self.redis, self._caller, PoolKeys(self.prefix, name))
        return self._pools[name]

    def blocking(self, block_ms: int) -> Pipe:
        """A pipe of its own for reads that block for so long; nothing is retried. The caller closes it."""
        return Pipe(self.new_connection, timeout_s=block_ms / 1000 + COMMAND_TIMEOUT_S)

    async def listen(
        self, channel: str, *, on_subscribed: Callable[[], None], on_message: Callable[[bytes], None]
    ) -> NoReturn:
        """Call `on_message` for each message of a channel, until the connection is lost: raises what Redis raises.

        redis-py's `PubSub` spends 40 µs on a message, this 5."""
        connection = self.new_connection()
        try:
            await connection.connect()
            connection.write(pack("SUBSCRIBE", channel))
            while True:
                kind, _, data = await connection.read_response(disconnect_on_error=False)
                if kind == b"message":
                    on_message(data)
                elif kind == b"subscribe":
                    on_subscribed()
        finally:
            with contextlib.suppress(*TROUBLE):
                await connection.disconnect(nowait=True)

    def dedicated(self) -> Any:
        """A client of its own for blocking reads or pub/sub: no reply timeout, no retries (its loop reconnects)."""
        client = self._client(None, retries=0, max_connections=2)
        self._extra.append(client)
        return client

    async def release(self, client: Any) -> None:
        """Close a dedicated client."""
        if client in self._extra:
            self._extra.remove(client)
        await client.aclose()

    async def pool_names(self) -> list[str]:
        members: set[bytes] = await self.redis.smembers(pools_key(self.prefix))
        return sorted(member.decode() for member in members)

    async def add_pool(self, name: str) -> None:
        await self.redis.sadd(pools_key(self.prefix), name)

    async def close(self) -> None:
        for pipe in (self.pipe, self._bulk):
            await pipe.close()
        for client in [self.redis, *self._extra]:
            await client.aclose()

    def _new_pipe(self) -> Pipe:
        retry = Retry(EqualJitterBackoff(cap=0.5, base=0.05), _NUM_RETRIES, supported_errors=RETRIED)
        return Pipe(self.new_connection, timeout_s=COMMAND_TIMEOUT_S, retry=retry)

    def new_connection(self) -> PipedConnection:
        """For a pipe; not connected yet."""
        return connection_pool(self.url, timeout_s=None, retries=0, max_connections=1).make_connection()

    def _client(self, timeout_s: float | None, *, retries: int, max_connections: int) -> redis.Redis:
        return redis.Redis.from_pool(
            connection_pool(self.url, timeout_s=timeout_s, retries=retries, max_connections=max_connections)
        )


class _Piped:
    """Writes without waiting, for pipes; else sends without `asyncio.wait_for`, which redis-py uses with a timeout.

    On Python 3.11 that can swallow a cancellation that arrives as the write ends (python/cpython issue 86296), and a
    task that was cancelled would run on; it also costs a task a command.
    """

    socket_timeout: float | None

    def write(self, packed: bytes) -> None:
        """The answer is whoever's turn it is with `read_response`. Raises `ConnectionError` when it is lost already."""
        this: Any = self
        # uvloop raises `RuntimeError` for a transport that its peer has closed, before any reader has noticed.
        if not this.is_connected or this._writer.is_closing():
            raise ConnectionError("Connection closed")
        this._writer.write(packed)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        this: Any = self
        if not this.is_connected:
            await this.connect()
        elif check_health:
            await this.check_health()
        timeout_s, self.socket_timeout = self.socket_timeout, None
        parent: Any = super()
        try:
            async with asyncio.timeout(timeout_s):
                await parent.send_packed_command(command, check_health=False)
        except builtins.TimeoutError:
            raise TimeoutError("Timeout writing to Redis") from None
        finally:
            self.socket_timeout = timeout_s


class _Tcp(_Piped, connection.Connection):  # pyright: ignore[reportIncompatibleMethodOverride]  # same, untyped
    pass


class _Tls(_Piped, connection.SSLConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
    pass


class _Unix(_Piped, connection.UnixDomainSocketConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
    pass


_CLASSES: dict[str, type[connection.AbstractConnection]] = {"redis": _Tcp, "rediss": _Tls, "unix": _Unix}


def connection_pool(url: str, *, timeout_s: float | None, retries: int, max_connections: int) -> Any:
    """A pool for one client. Blocking: when all connections are in use a call waits for one, where the plain pool
    raises. Raises `ValueError` for a URL that is none of redis, rediss, unix."""
    options: dict[str, Any] = {
        "timeout": COMMAND_TIMEOUT_S,
        "decode_responses": False,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(EqualJitterBackoff(cap=0.5, base=0.05), retries),
        "retry_on_error": list(_RETRIED) if retries else [],
        "max_connections": max_connections,
        **connection.parse_url(url),
        "connection_class": _CLASSES[urlsplit(url).scheme],
    }
    if urlsplit(url).scheme != "unix":
        # A peer that vanished without a word is noticed within half a minute, also where nothing is ever sent.
        options = {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE, **options}
    return redis.BlockingConnectionPool(**options)


def connect(url: str, prefix: str = DEFAULT_PREFIX) -> Store:
    """Build a store; nothing is sent yet. Raises `ValueError` for a URL that is none of redis, rediss, unix."""
    return Store(url, prefix)
