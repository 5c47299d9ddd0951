"""Connections to Redis for threads that wait for it, up to a deadline of their own. The loop has `connections.py`.

redis-py's connections, and not its client: its timeout is the same for every call, and starts anew with every packet.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from paddler.store.connections import NAMELESS, login_options, tls_context
from paddler.store.location import Tls, locate
from paddler.store.pipe import Value

TimeLeft = Callable[[], float]
"""Seconds until the deadline. Raises `TimeoutError` when it is over."""


class SyncConnections:
    """To one server; Sentinels are not asked. At most `max_connections` at a time, and who wants one more is refused.
    Raises `ValueError` for a URL that cannot be."""

    def __init__(self, url: str, *, timeout_s: float, max_connections: int) -> None:
        location = locate(url)
        if location.service is not None:
            raise ValueError("a URL of one server, such as redis://host:port, not of Sentinels")
        options: dict[str, Any] = {
            **NAMELESS,
            **login_options(location.login),
            "db": location.db,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
        }
        made: type[_Timed] = _Unix
        if location.path is not None:
            options["path"] = location.path
        else:
            made = _Tcp if location.tls is None else _Tls
            options["host"], options["port"] = location.hosts[0]
            options |= {} if location.tls is None else {"tls": location.tls}
        # Any: of connections that are not by TCP redis-py's own annotations know nothing.
        self._pool: Any = redis.ConnectionPool(
            connection_class=cast("Any", made), max_connections=max_connections, **options
        )

    def call(self, *command: Value, left: TimeLeft) -> Any:
        """Raises what Redis raises, and `OSError`."""
        with self.talk() as ask:
            return ask([command], left)[0]

    @contextmanager
    def talk(self) -> Generator[Callable[[Sequence[tuple[Value, ...]], TimeLeft], list[Any]]]:
        """A connection for several calls, one after another: a list of commands, and the list of their answers. The
        first that is an error is raised."""
        connection = self._pool.get_connection()
        try:
            yield connection.ask
        except BaseException:
            connection.disconnect()  # what was asked may still be answered
            raise
        finally:
            self._pool.release(connection)

    def close(self) -> None:
        self._pool.disconnect()


class _Timed:
    """Beside a connection of redis-py."""

    def ask(self, commands: Sequence[tuple[Value, ...]], left: TimeLeft) -> list[Any]:
        this: Any = self
        this._sock.settimeout(left())
        this.send_packed_command(this.pack_commands(commands), check_health=False)
        answers: list[Any] = []
        for _ in commands:
            this._sock.settimeout(left())
            answers.append(this.read_response())
        return answers


class _Tcp(_Timed, redis.Connection):
    pass


class _Unix(_Timed, redis.UnixDomainSocketConnection):
    pass


class _Tls(_Tcp):
    """As in `connections.py`: only the authorities that were given, and certificates as they are now."""

    def __init__(self, *, tls: Tls, **options: Any) -> None:
        self._tls = tls
        parent: Any = super()
        parent.__init__(**options)

    def _connect(self) -> socket.socket:
        parent: Any = super()
        plain: socket.socket = parent._connect()
        try:
            return tls_context(self._tls).wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
