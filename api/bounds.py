"""Uvicorn's HTTP connection, with bounds on what a client may hold without using it: uvicorn itself waits for ever for
the rest of a request, and takes headers of any size.

| what | bound | answer |
|---|---|---|
| a connection on which no request begins | `IDLE_S`, uvicorn's own between requests | closed |
| a request that does not end | `PATIENCE_S`, and a second more for each `MIN_RATE` bytes of it | 408, closed |
| headers, the request line included | `MAX_HEAD` bytes | 431, closed |
| bytes that are no HTTP | none | 400, closed; in the middle of an answer only closed |

No timers: `is_overdue` is asked of each connection about once a second (`Service.on_tick`), so that a request costs a
look at the clock. A body is bounded by the application, which also waits here without a limit of its own.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

IDLE_S = 75
"""Longer than what common load balancers keep idle connections for, so that they close them and not we."""
PATIENCE_S = 20.0
MIN_RATE = 16 * 1024
MAX_HEAD = 64 * 1024
MAX_PIPELINED = 8


class BoundedConnection(HttpToolsProtocol):
    """One connection of a client. `loop.time` is its clock, as it is that of uvicorn's own timers."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle_since_s: float | None = self.loop.time()
        self._begun_s: float | None = None
        """When the first byte came of the request that is being received."""
        self._num_received = 0
        self._num_head: int | None = None
        """Bytes received of headers that have not ended."""
        self._refused: HTTPStatus | None = None
        self._answered: RequestResponseCycle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._num_received += len(data)
        if self._num_head is not None and self.parser is not None:
            self._num_head += len(data)
            if self._num_head > MAX_HEAD:
                self._refused = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        # Uvicorn tells the request that was read last; the one being answered may be before it.
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun_s = self.loop.time()
        self._idle_since_s = None
        self._num_received = self._num_head = 0

    def on_headers_complete(self) -> None:
        self._num_head = None
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            self._refused = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("headers are too large")  # the parser stops, and `send_400_response` is called
        super().on_headers_complete()
        if 0 < len(self.pipeline) <= MAX_PIPELINED:
            # Uvicorn stops reading until it is this request's turn, and would not see its client leave.
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._begun_s = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Only now can the next one be read: what came of it meanwhile waited for us.
        if self._begun_s is not None:
            self._begun_s = self.loop.time()
        if not self.pipeline:
            self._idle_since_s = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        if self._is_answering:
            # What went out so far is an answer, and nothing but its rest may follow.
            self.transport.close()
            return
        if self._refused is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._refused)

    def is_overdue(self, now_s: float) -> bool:
        if self._begun_s is not None:
            # It is we who do not read, or who have not answered the request before it.
            if self.flow.read_paused or self._is_answering:
                return False
            return now_s - self._begun_s > PATIENCE_S + self._num_received / MIN_RATE
        return self._idle_since_s is not None and now_s - self._idle_since_s > IDLE_S + 1

    def end_overdue(self) -> None:
        """Close it; say why if that is an answer to something."""
        is_answered = self._num_head is None and self._last is not None and self._last.response_started
        if self._begun_s is None or is_answered:
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def _last(self) -> RequestResponseCycle | None:
        """The request whose headers were read last."""
        return self.cycle

    @property
    def _is_answering(self) -> bool:
        """A request that was received before is being answered."""
        if self.pipeline:
            return True
        cycle = self._last
        return cycle is not None and not cycle.response_complete and (cycle.response_started or not cycle.more_body)

    def _refuse(self, status: HTTPStatus) -> None:
        text = status.phrase.encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\n" % (status, text)
        self.transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(text) + text)
        self.transport.close()
