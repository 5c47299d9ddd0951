"""Lines of the log on their way out, past a reader that does not read.

A pipe holds 64 KiB. When nobody reads it the next write waits, and with it, in a process of one event loop, every
stream of every client: a log must not hold up what it tells of. So lines are written by a thread; what finds its queue
full is dropped and counted, and that is told in its place, before the next line that finds room.

What cannot be written, as the disk is full or the reader has gone, is dropped as well and ends nothing. There is no
other place to say so: `num_dropped` is for metrics, and the first line that can be written again has one before it.

    writer = LineWriter(2, told=lambda num, why: f"{num} lines were dropped ({why})")
    writer.put("a line")
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable

MAX_BYTES = 4 * 1024 * 1024
"""Of lines that wait: some 20,000 of the access log."""
END_S = 1.0
"""At the end of the process what waits is written for so long."""


class LineWriter:
    """To a file descriptor. `told` makes the line that says how many were dropped since the last one that said so, and
    what the operating system said of the last that could not be written; None if all found no room. From any thread."""

    def __init__(self, fd: int, told: Callable[[int, str | None], str], *, max_bytes: int = MAX_BYTES) -> None:
        self.num_dropped = 0
        self._fd = fd
        self._told = told
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Lines, and of how many that were dropped each tells: 0, but for those of `told`."""
        self._num_bytes = 0
        self._num_untold = 0
        self._why: str | None = None
        self._is_torn = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_loop, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        with self._changed:
            # One that is longer than all that may wait is written if nothing else waits.
            if self._is_closed or (self._waiting and self._num_bytes + len(data) > self._max_bytes):
                self.num_dropped += 1
                self._num_untold += 1
                return
            if self._num_untold:
                self._tell()
            self._waiting.append((data, 0))
            self._num_bytes += len(data)
            self._changed.notify_all()

    def flush(self, timeout_s: float = END_S) -> bool:
        """Wait until all that waits is written, but not longer. Whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """Write what waits, as `flush`, and nothing more."""
        self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _write_loop(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closed:
                        return
                    self._changed.wait()
                data, num_told = self._waiting[0]
            why = self._write(data)
            with self._changed:
                self._waiting.popleft()
                self._num_bytes -= len(data)
                if why is not None:
                    self._why = why
                    self.num_dropped += 0 if num_told else 1
                    self._num_untold += num_told or 1
                elif self._num_untold and not self._waiting:
                    self._tell()  # nobody may log again
                self._changed.notify_all()

    def _tell(self) -> None:
        """Behind what waits, which came before the lines that were dropped."""
        note = f"{self._told(self._num_untold, self._why)}\n".encode("utf-8", "backslashreplace")
        self._waiting.append((note, self._num_untold))
        self._num_untold, self._why = 0, None
        self._num_bytes += len(note)

    def _write(self, data: bytes) -> str | None:
        """Why it cannot be written; a part of it may have been, behind which the next line begins on one of its own."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # whoever started us has made it so
                with contextlib.suppress(OSError, ValueError):
                    select.select([], [self._fd], [])
            except OSError as error:
                self._is_torn = len(rest) < len(data)
                return error.strerror or type(error).__name__
        self._is_torn = False
        return None
