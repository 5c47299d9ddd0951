"""The module that builds Redis clients, and the retries they have; `connections.py` has what they go over.

Scripts go through a pipe (`pipe.py`), large ones through a second, so that 32 MiB of images do not stand before
everybody's tokens; other commands through redis-py's client. A reply is due within 5 s; a lost connection is retried
three times within about a second, because all scripts are idempotent. Blocking reads have a connection of their own
whose replies have more time than they block. Nothing is decoded: payloads and frames are bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import EqualJitterBackoff
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError, ResponseError

from paddler.store.connections import COMMAND_TIMEOUT_S, Connector
from paddler.store.keys import DEFAULT_PREFIX, PoolKeys, pools_key
from paddler.store.pipe import RETRIED, Pipe, PipedConnection, pack
from paddler.store.scripts import PoolScripts, ScriptCaller
from paddler.store.scripts_batch import BatchScripts
from paddler.store.scripts_desired import DesiredScripts
from paddler.store.scripts_lease import LeaseScripts
from paddler.store.scripts_prefix import PrefixScripts
from paddler.store.scripts_tenants import TenantScripts
from paddler.store.scripts_turns import TurnScripts

MAX_CONNECTIONS = 32

TROUBLE = (RedisError, OSError)
"""What a call raises when Redis cannot be reached or refuses; callers turn it into `QueueUnavailable` or retry."""

FAILOVER = (ReadOnlyError, MasterDownError)
"""Refusals of a server that is no primary (any more): as if it could not be reached."""


def is_refusal(error: BaseException) -> bool:
    """Redis is there and said no to this one call; not a server that is no primary, which says no to everything."""
    return isinstance(error, ResponseError) and not isinstance(error, FAILOVER)


_NUM_RETRIES = 3


class Store:
    """A Redis server as Paddler sees it: a client for commands, and one pool's keys and scripts on demand."""

    def __init__(self, url: str, prefix: str = DEFAULT_PREFIX) -> None:
        self.url = url
        self.prefix = prefix
        self._connector = Connector(url)
        # Any: redis-py types each command as "sync or async", which no checker can await.
        self.redis: Any = self._client(COMMAND_TIMEOUT_S, retries=_NUM_RETRIES, max_connections=MAX_CONNECTIONS)
        self.pipe, self._bulk = self._new_pipe(), self._new_pipe()
        self._caller = ScriptCaller(self.pipe, self._bulk)
        self.batch_scripts = BatchScripts(self._caller)
        self.desired_scripts = DesiredScripts(self._caller)
        self.tenant_scripts = TenantScripts(self._caller, prefix)
        self.leases = LeaseScripts(self._caller)
        self.prefix_scripts = PrefixScripts(self._caller)
        self._pools: dict[str, PoolScripts] = {}
        self._extra: list[Any] = []

    def pool(self, name: str) -> PoolScripts:
        if name not in self._pools:
            self._pools[name] = PoolScripts(self.redis, self._caller, PoolKeys(self.prefix, name))
        return self._pools[name]

    def turns(self, pool: str) -> TurnScripts:
        return TurnScripts(self.redis, self._caller, PoolKeys(self.prefix, pool))

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
        return self._connector.connection()

    def _client(self, timeout_s: float | None, *, retries: int, max_connections: int) -> redis.Redis:
        return redis.Redis.from_pool(
            self._connector.pool(timeout_s=timeout_s, retries=retries, max_connections=max_connections)
        )


def connection_pool(url: str, *, timeout_s: float | None, retries: int, max_connections: int) -> Any:
    """A pool for one client that is not the store's. Raises `ValueError` for a URL that is none of Redis."""
    return Connector(url).pool(timeout_s=timeout_s, retries=retries, max_connections=max_connections)


def connect(url: str, prefix: str = DEFAULT_PREFIX) -> Store:
    """Build a store; nothing is sent yet. Raises `ValueError` for a URL that is none of Redis (`location.py`)."""
    return Store(url, prefix)
