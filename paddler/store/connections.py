"""Connections to Redis by redis-py, for its own client and for pipes: TCP, TLS, a socket, by way of Sentinel."""

from __future__ import annotations

import asyncio
import builtins
import socket
import ssl
from typing import Any

import redis.asyncio as redis
from redis.asyncio import connection
from redis.asyncio.retry import Retry
from redis.backoff import EqualJitterBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from paddler.store.location import Location, Login, Tls, locate

COMMAND_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
ASK_TIMEOUT_S = 1.0
"""Of one Sentinel; then the next is asked."""

NAMELESS: dict[str, Any] = {"lib_name": None, "lib_version": None}
"""No CLIENT SETINFO: Redis 7.0 knows it not even as a right, so a user there would be refused it each time."""
_RETRIED = [ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError]
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}


class Connector:
    """Makes connections to one place. `url` is read once: raises `ValueError` for one that cannot be."""

    def __init__(self, url: str) -> None:
        location = locate(url)
        self._options: dict[str, Any] = {**NAMELESS, "db": location.db, **login_options(location.login)}
        if location.path is not None:
            self._class: type[connection.AbstractConnection] = _Unix
            self._options["path"] = location.path
            return
        # A peer that vanished without a word is noticed within half a minute, also where nothing is ever sent.
        self._options |= {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
        if location.tls is not None:
            self._options["tls"] = location.tls
        if location.service is None:
            self._class = _Tcp if location.tls is None else _Tls
            self._options["host"], self._options["port"] = location.hosts[0]
        else:
            self._class = _SentinelTcp if location.tls is None else _SentinelTls
            self._options["sentinels"] = Sentinels(location)

    def pool(self, *, timeout_s: float | None, retries: int, max_connections: int) -> Any:
        """A pool for one client. Blocking: when all connections are in use a call waits for one, where the plain pool
        raises."""
        options: dict[str, Any] = {
            "timeout": COMMAND_TIMEOUT_S,
            "decode_responses": False,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "retry": Retry(EqualJitterBackoff(cap=0.5, base=0.05), retries),
            "retry_on_error": list(_RETRIED) if retries else [],
            "max_connections": max_connections,
            **self._options,
            "connection_class": self._class,
        }
        return redis.BlockingConnectionPool(**options)

    def connection(self) -> Any:
        """For a pipe; not connected yet. No reply timeout, no retries."""
        return self.pool(timeout_s=None, retries=0, max_connections=1).make_connection()


class Sentinels:
    """Knows who knows where the primary is; the one that answered last is asked first."""

    def __init__(self, location: Location) -> None:
        assert location.service is not None
        self._service = location.service
        self._hosts = list(location.hosts)
        self._class = _Tcp if location.tls is None else _Tls
        self._options: dict[str, Any] = {
            **NAMELESS,
            "socket_connect_timeout": ASK_TIMEOUT_S,
            "socket_timeout": ASK_TIMEOUT_S,
            **login_options(location.sentinel_login),
            **({} if location.tls is None else {"tls": location.tls}),
        }

    async def find_primary(self) -> tuple[str, int]:
        """Host and port. Raises `ConnectionError` saying what each Sentinel said."""
        told: list[str] = []
        for host, port in list(self._hosts):
            try:
                found = await self._ask(host, port)
            except (RedisError, OSError) as error:
                told.append(f"{host}:{port}: {error or type(error).__name__}")
                continue
            if found is None:
                told.append(f"{host}:{port} knows no service of this name")
                continue
            self._hosts.remove((host, port))
            self._hosts.insert(0, (host, port))
            return found[0].decode(), int(found[1])
        raise ConnectionError(f"no Sentinel tells the primary of {self._service!r}: {'; '.join(told)}")

    async def _ask(self, host: str, port: int) -> tuple[bytes, bytes] | None:
        asked: Any = self._class(host=host, port=port, **self._options)
        try:
            await asked.connect()
            await asked.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            return await asked.read_response()
        finally:
            await asked.disconnect(nowait=True)


class _FileCredentials(CredentialProvider):
    """Read anew for each connection: a password that is changed needs no restart."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        path = self._login.password_file
        assert path is not None
        try:
            password = path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise AuthenticationError(f"the password file {path} cannot be read: {error}") from None
        return (self._login.username, password) if self._login.username else (password,)


def login_options(login: Login) -> dict[str, Any]:
    if login.password_file is not None:
        return {"credential_provider": _FileCredentials(login)}
    return {"username": login.username, "password": login.password} if login.is_needed else {}


def tls_context(tls: Tls) -> ssl.SSLContext:
    """For the client's side. Raises `OSError`, `ssl.SSLError` among it, for files that cannot be used."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.check_hostname = tls.checks_hostname
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


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


class _Tls(_Tcp):
    """Not redis-py's: that would trust everybody's certificate authorities beside the one that is given, and keep a
    certificate that has been renewed since."""

    def __init__(self, *, tls: Tls, **options: Any) -> None:
        self._tls = tls
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]  # untyped

    def _connection_arguments(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "ssl": tls_context(self._tls)}


class _Unix(_Piped, connection.UnixDomainSocketConnection):  # pyright: ignore[reportIncompatibleMethodOverride]
    pass


class _Led:
    """Asks the Sentinels before each connect, and then the server itself: what they say may be older than a failover
    (the protocol for clients of Sentinel has both). A primary that steps down closes its connections or answers
    READONLY, and both lead here again."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        parent: Any = super()
        parent.__init__(**options)

    async def _connect(self) -> None:
        this: Any = self
        this.host, this.port = await self._sentinels.find_primary()
        parent: Any = super()
        await parent._connect()

    async def on_connect(self) -> None:
        this: Any = self
        parent: Any = super()
        await parent.on_connect()
        await this.send_command("ROLE", check_health=False)
        try:
            role, *_ = await this.read_response()
        except NoPermissionError:
            return  # then the first write tells
        if role != b"master":
            raise ConnectionError(f"{this.host}:{this.port} is no primary (any more)")


class _SentinelTcp(_Led, _Tcp):
    pass


class _SentinelTls(_Led, _Tls):
    pass
