"""EC2's metadata service as far as `local-ipv4` goes, on a port of this machine; version 1 is refused."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "AQAEA-token=="
TTL = "X-aws-ec2-metadata-token-ttl-seconds"


class FakeMetadata(ThreadingHTTPServer):
    def __init__(self, address: str = "127.0.0.1", *, is_enabled: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = address
        self.is_enabled = is_enabled
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeMetadata  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_PUT(self) -> None:
        has_ttl = self.headers.get(TTL, "").isdecimal() and 1 <= int(self.headers[TTL]) <= 21_600
        if not self.server.is_enabled:
            self._answer(403, "")
        elif self.path == "/latest/api/token":
            self._answer(200 if has_ttl else 400, TOKEN if has_ttl else "")
        else:
            self._answer(404, "")

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self._answer(401, "")  # version 1
        elif self.path == "/latest/meta-data/local-ipv4":
            self._answer(200, self.server.address)
        else:
            self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        self.server.calls.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def fake_metadata(address: str = "127.0.0.1", *, is_enabled: bool = True) -> Generator[FakeMetadata]:
    server = FakeMetadata(address, is_enabled=is_enabled)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
