"""A web server with files, which can be told to behave badly."""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urlsplit

WAIT_S = 30.0


@dataclass(frozen=True)
class Trick:
    """What a request meets in place of good service. Bytes are counted in the body of the answer."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    """The connection ends after so many bytes."""
    stalls_at: int | None = None
    """Nothing more comes after so many bytes, until the server is closed or `go_on` is called."""
    hangs: bool = False
    """Nothing comes at all."""
    claims: int | None = None
    """As `Content-Length`."""
    surplus: bytes = b""
    """Behind the file."""
    is_chunked: bool = False
    has_length: bool = True
    is_zipped: bool = False
    ignores_range: bool = False
    ignores_if_range: bool = False
    content_range: str | None = None
    most: int | None = None
    """An answer to a range has so many bytes at most."""


GOOD = Trick()


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    port: int
    """The client's: one for each connection."""


@dataclass
class Stored:
    body: bytes
    etag: str | None
    modified: str | None
    headers: Mapping[str, str]


class FileServer:
    """`with FileServer() as server`. Thread-safe for tests that change files between requests."""

    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}
        self._tricks: dict[str, list[Trick]] = {}
        self.seen: list[Seen] = []
        self.go_on = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has gone away is nothing to tell of."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(WAIT_S)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._http.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def put(
        self,
        path: str,
        body: bytes,
        *,
        etag: str | None = "",
        modified: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Returns the URL. By default the ETag is made of the body."""
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"' if etag == "" else etag
        self._stored[path] = Stored(body, tag, modified, headers or {})
        return self.url(path)

    def trick(self, path: str, *tricks: Trick) -> None:
        """For the next requests of a path, one each; the last stays."""
        self._tricks[path] = list(tricks)

    def gets(self, path: str) -> list[Mapping[str, str]]:
        """The headers of each GET, names in lower case."""
        return [one.headers for one in self.seen if (one.method, one.path) == ("GET", path)]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.seen.append(Seen(handler.command, path, headers, handler.client_address[1]))
        tricks = self._tricks.get(path, [GOOD])
        trick = tricks.pop(0) if len(tricks) > 1 else tricks[0]
        if trick.hangs:
            self.go_on.wait(WAIT_S)
            handler.close_connection = True
            return
        stored = self._stored.get(path)
        if trick.status is not None or stored is None:
            _send(handler, trick.status or 404, {**trick.headers}, trick.body)
            return
        self._send_file(handler, headers, stored, trick)

    def _send_file(
        self, handler: BaseHTTPRequestHandler, asked: Mapping[str, str], stored: Stored, trick: Trick
    ) -> None:
        start, end, size = 0, len(stored.body), len(stored.body)
        headers = {**stored.headers, "Accept-Ranges": "bytes"}
        if stored.etag is not None:
            headers["ETag"] = stored.etag
        if stored.modified is not None:
            headers["Last-Modified"] = stored.modified
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))
        is_same = asked.get("if-range") in (None, stored.etag, stored.modified) or trick.ignores_if_range
        status = 200
        if wanted and is_same and not trick.ignores_range:
            start = int(wanted[1])
            if start >= size:
                _send(handler, 416, {"Content-Range": f"bytes */{size}"}, b"")
                return
            end = min(size, start + trick.most) if trick.most else size
            end = min(end, int(wanted[2]) + 1) if wanted[2] else end
            status = 206
            headers["Content-Range"] = trick.content_range or f"bytes {start}-{end - 1}/{size}"
        body = stored.body[start:end] + trick.surplus
        if trick.is_zipped:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        claims = len(body) - len(trick.surplus) if trick.claims is None else trick.claims
        if trick.is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif trick.has_length:
            headers["Content-Length"] = str(claims)
        else:
            headers["Connection"] = "close"
        handler.send_response(status)
        for name, value in {**headers, **trick.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        self._send_body(handler, body, trick)

    def _send_body(self, handler: BaseHTTPRequestHandler, body: bytes, trick: Trick) -> None:
        stop = trick.cut_at if trick.cut_at is not None else trick.stalls_at
        sent = body if stop is None else body[:stop]
        for at in range(0, len(sent), 65536):
            block = sent[at : at + 65536]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if trick.is_chunked else block)
        handler.wfile.flush()
        if trick.stalls_at is not None:
            self.go_on.wait(WAIT_S)
            handler.wfile.write(body[trick.stalls_at :])
        elif trick.cut_at is not None or not trick.has_length or trick.claims is not None or trick.surplus:
            handler.close_connection = True
            if trick.cut_at is not None:
                handler.connection.shutdown(SHUT_RDWR)
        if trick.is_chunked and stop is None:
            handler.wfile.write(b"0\r\n\r\n")


def _send(handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
