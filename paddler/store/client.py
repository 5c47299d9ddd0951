"""The one module that builds Redis clients, and the timeouts and retries they have.

Commands: a reply is due within 5 s; a lost connection is retried three times within about a second, because
all scripts are idempotent. Blocking reads have a connection of their own without a reply timeout, or the
timeout would cut the block. Nothing is decoded: payloads and frames are bytes.
"""

from __future__ import annotations

import asyncio
import builtins
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.asyncio import connection
from redis.asyncio.retry import Retry
from redis.backoff import EqualJitterBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from paddler.store.keys import DEFAULT_PREFIX, PoolKeys, pools_key
from paddler.store.scripts import PoolScripts

COMMAND_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 32

TROUBLE = (RedisError, OSError)
"""What a call raises when Redis cannot be reached or refuses; callers turn it into `QueueUnavailable` or retry."""

_RETRIED = [ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError]


class Store:
    """A Redis server as Paddler sees it: a client for commands, and one pool's keys and scripts on demand."""

    def __init__(self, url: str, prefix: str = DEFAULT_PREFIX) -> None:
        self.url = url
        self.prefix = prefix
        # Any: redis-py types each command as "sync or async", which no checker can await.
        self.redis: Any = self._client(COMMAND_TIMEOUT_S, retries=3, max_connections=MAX_CONNECTIONS)
        self._pools: dict[str, PoolScripts] = {}
        self._extra: list[Any] = []

    def pool(self, name: str) -> PoolScripts:
        if name not in self._pools:
            self._pools[name] = PoolScripts(self.redis, PoolKeys(self.prefix, name))
        return self._pools[name]

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
        for client in [self.redis, *self._extra]:
            await client.aclose()

    def _client(self, timeout_s: float | None, *, retries: int, max_connections: int) -> redis.Redis:
        return redis.Redis.from_pool(
            connection_pool(self.url, timeout_s=timeout_s, retries=retries, max_connections=max_connections)
        )


class _Cancellable:
    """Sends without `asyncio.wait_for`, which redis-py uses when a timeout is set.

    On Python 3.11 it can swallow a cancellation that arrives as the write ends (python/cpython issue 86296), and a
    task that was cancelled would run on; it also costs a task a command.
    """

    socket_timeout: float | None

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


class _Tcp(_Cancellable, connection.Connection):  # pyright: ignore[reportIncompatibleMethodOverride]  # same, untyped
    pass


class _Tls(_Cancellable, connection.SSLConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
    pass


class _Unix(_Cancellable, connection.UnixDomainSocketConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
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
    return redis.BlockingConnectionPool(**options)


def connect(url: str, prefix: str = DEFAULT_PREFIX) -> Store:
    """Build a store; nothing is sent yet. Raises `ValueError` for a URL that is none of redis, rediss, unix."""
    return Store(url, prefix)
