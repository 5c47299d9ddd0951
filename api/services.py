"""Several HTTP services in one event loop, that start and stop together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Generator, Sequence

import uvicorn
from litestar.types import ASGIApp

from api.bounds import IDLE_S, BoundedConnection
from api.sockets import bound_address
from api.web_sockets import NO_WEB_SOCKETS, WebSockets
from paddler.clock import SystemClock
from paddler.logs import get_logger

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_S = 3
"""How long a client that does not read may hold up a stop."""

TICK_S = 0.1
"""Uvicorn's: how often it looks at itself, and how long applications have to end what they are doing in their own way.
"""
SWEEP_TICKS = 10
END_POLL_S = 0.005
"""How often a service that ends looks whether its connections are gone."""

_log = get_logger(__name__)


class _Config(uvicorn.Config):
    """Uvicorn's, with a context that is ours: it makes one of its own from files, once."""

    tls: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.ssl = self.tls


class Service(uvicorn.Server):
    """One application on one listening socket. It leaves signals to `run_services`."""

    def __init__(
        self,
        name: str,
        app: ASGIApp,
        listener: socket.socket,
        web_sockets: WebSockets | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`web_sockets` None: it takes none. `tls` None: HTTP, else HTTPS alone."""
        # The application as an object: an import string would be looked up in the working directory first.
        config = _Config(
            app,
            http=BoundedConnection,
            **(NO_WEB_SOCKETS if web_sockets is None else web_sockets.settings()),
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_S,
        )
        config.tls = tls
        super().__init__(config)
        self.name = name
        self.listener = listener
        self._clock = SystemClock()
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """End soon: no new connections, and those that are there have `GRACE_S`."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Uvicorn's, but that it does not sleep on when it is to leave."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._leaving.wait()

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_TICKS == 0:
            self.end_overdue(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def end_overdue(self, now_s: float) -> None:
        """Close connections whose clients have held them for too long."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedConnection) and connection.is_overdue(now_s):
                connection.end_overdue()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's would rest for a tenth of a second in any case, and cancel what is left with a traceback each: to
        an application this is a client that left."""
        for server in self.servers:
            server.close()
        for one in sockets or ():
            one.close()
        state = self.server_state
        if state.tasks:
            # Applications say themselves that this is the end: a socket is closed with 1001 there, with 1012 here.
            await asyncio.wait(set(state.tasks), timeout=TICK_S)
        for connection in list(state.connections):
            connection.shutdown()
        abort = asyncio.get_running_loop().call_later(GRACE_S, self._abort_connections)
        try:
            async with asyncio.timeout(GRACE_S + 1):
                while (state.connections or state.tasks) and not self.force_exit:
                    await self._clock.sleep(END_POLL_S)
        except TimeoutError:
            for task in state.tasks:
                task.cancel()
        finally:
            abort.cancel()

    def _abort_connections(self) -> None:
        connections = list(self.server_state.connections)
        _log.warning("closing connections that do not read", service=self.name, connections=len(connections))
        for connection in connections:
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def run_services(
    services: Sequence[Service],
    on_stop: Callable[[], None],
    failed: asyncio.Event,
    on_hangup: Callable[[], None] | None = None,
) -> None:
    """Serve until a stop signal arrives, `failed` is set, or a service fails (its error is raised).

    `on_stop` is called first, to end what is being answered; then connections have `GRACE_S` to finish. A
    second signal does not wait for them. `on_hangup` is what SIGHUP calls instead of stopping.
    """
    stop = asyncio.Event()

    def stop_or_force(received: signal.Signals) -> None:
        if stop.is_set():
            for service in services:
                service.force_exit = True
        else:
            _log.info("stopping", signal=received.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop_or_force, number)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)

    tasks = [asyncio.create_task(service.serve([service.listener])) for service in services]
    for service in services:
        _log.info("listening", service=service.name, address=str(bound_address(service.listener)))
    ends = [asyncio.create_task(event.wait()) for event in (stop, failed)]
    try:
        await asyncio.wait((*tasks, *ends), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        on_stop()
        for service in services:
            service.leave()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
