"""A proxy that ends TLS before a service that knows nothing of it, and changes nothing else: `Host` is the client's."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from secure_servers import make_certificates


@contextmanager
def tls_relay(port: int, folder: Path) -> Generator[int]:
    """Before a port of this machine; gives its own. It runs in a thread: Playwright's loop has the test's."""
    certificates = make_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    begun: Future[tuple[int, Callable[[], object]]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(port, context, begun)))
    thread.start()
    own, stop = begun.result(10)
    try:
        yield own
    finally:
        stop()
        thread.join()


async def _serve(port: int, context: ssl.SSLContext, begun: Future[tuple[int, Callable[[], object]]]) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    server = await asyncio.start_server(partial(_relay, port), "127.0.0.1", 0, ssl=context)
    begun.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stopping.set)))
    await stopping.wait()
    server.close()


async def _relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    behind, ahead = await asyncio.open_connection("127.0.0.1", port)
    try:
        # Cancelled at the end of the test; asyncio would tell of that as of an error.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(_pipe(reader, ahead), _pipe(behind, writer))
    finally:
        ahead.close()
        writer.close()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until either side has gone; then the other one goes, too."""
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
