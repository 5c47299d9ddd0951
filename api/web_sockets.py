"""How a service speaks WebSocket: limits, and an end that its client hears of."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

NO_WEB_SOCKETS: dict[str, Any] = {"ws": "none"}
"""Settings of a service without."""

LINGER_S = 2.0
"""How long after its close code a connection is read, and what comes thrown away."""


class WebSockets(Struct, frozen=True):
    """`max_size` is bytes of a message: a larger one closes its connection with 1009. A client is pinged
    `ping_interval_s` after its last pong; one that owes a pong for `ping_timeout_s` is closed with 1011."""

    max_size: int
    ping_interval_s: float = 3.0
    ping_timeout_s: float = 30.0

    def settings(self) -> dict[str, Any]:
        """Those of `uvicorn.Config`. Of its implementations this is the one whose library is neither slow nor
        deprecated."""
        return {
            "ws": LingeringProtocol,
            "ws_max_size": self.max_size,
            "ws_ping_interval": self.ping_interval_s,
            "ws_ping_timeout": self.ping_timeout_s,
            # To compress a token takes longer than to send it.
            "ws_per_message_deflate": False,
        }


class LingeringProtocol(WebSocketsSansIOProtocol):
    """Uvicorn closes a connection as soon as a message is too large, while most of that is still under way: the system
    answers that with a reset, and a client that is writing never reads why."""

    def data_received(self, data: bytes) -> None:
        if not (self.close_sent and self.conn.parser_exc is not None):
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        closed = self.conn.close_sent
        assert closed is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)
