"""A server that takes connections and says nothing, only what it is given, or the same again and again."""

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


@contextlib.contextmanager
def dribbles(beginning: bytes, again: bytes, pause_s: float = 0.05) -> Generator[int]:
    """Its port. To one connection it writes `beginning` and then `again` every `pause_s`, until it is closed."""
    is_over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one, _ = listener.accept()
            with one:
                one.sendall(beginning)
                while not is_over.wait(pause_s):
                    one.sendall(again)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            is_over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
