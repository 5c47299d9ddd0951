"""A server that takes connections and says nothing, or only what it is given."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator


@contextlib.contextmanager
def says(beginning: bytes = b"") -> Generator[int]:
    """Its port. To each connection it writes `beginning`, reads what comes, and stays until the end."""
    taken: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                taken.append(one)
                if beginning:
                    one.recv(1 << 16)
                    one.sendall(beginning)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for one in taken:
                one.close()
            thread.join(5)
