"""The panel's files, as `make panel` has built them: read once, sent compressed where a browser takes that.

Names of assets have a hash of what is in them, so that they never change; `index.html` is asked for each time.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from litestar.types import HTTPScope, Receive, Scope, Send
from msgspec import Struct

from api.connection import Headers

BUILT = Path(__file__).parent / "dist"
INDEX = "/index.html"
ASSETS = "/assets/"
ENCODINGS = (("br", ".br"), ("gzip", ".gz"))

TEXTS = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}

NOT_BUILT = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Paddler</title></head>
<body>
<h1>The panel is not built yet</h1>
<p>This copy of Paddler is without it. In its folder, say</p>
<pre>make panel</pre>
<p>and load this page again. It takes Node.js 20.19 or newer, or fetches one, and a minute. Packages of Paddler bring
the panel along.</p>
</body>
</html>
"""


class File(Struct, frozen=True):
    """`bodies` by content encoding, the plain one under `""`."""

    media_type: str
    etag: bytes
    bodies: Mapping[str, bytes]


class Pages:
    """An ASGI application. Without a build it says how to get one, and looks for it each time."""

    def __init__(self, folder: Path = BUILT) -> None:
        self._folder = folder
        self._files: dict[str, File] = {}

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        files = self._look()
        if not files:
            headers: Headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
            await _answer(scope, send, 503, headers, NOT_BUILT)
            return
        path: str = scope["path"]
        found = files.get(INDEX if path == "/" else path)
        if found is None:
            await _answer(
                scope, send, 404, [(b"content-type", b"text/plain; charset=utf-8")], b"There is no such page."
            )
            return
        await _send_file(scope, send, found, is_fixed=path.startswith(ASSETS))

    def _look(self) -> Mapping[str, File]:
        if not self._files and (self._folder / "index.html").exists():
            self._files = read_files(self._folder)
        return self._files


def read_files(folder: Path) -> dict[str, File]:
    """By path as a URL has it."""
    files: dict[str, File] = {}
    endings = tuple(ending for _, ending in ENCODINGS)
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.endswith(endings):
            continue
        body = path.read_bytes()
        bodies = {"": body}
        for encoding, ending in ENCODINGS:
            other = path.with_name(path.name + ending)
            if other.exists():
                bodies[encoding] = other.read_bytes()
        kind = TEXTS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        etag = b'"%b"' % sha256(body).hexdigest()[:24].encode()
        files[f"/{path.relative_to(folder).as_posix()}"] = File(kind, etag, bodies)
    return files


async def _send_file(scope: Scope, send: Send, file: File, *, is_fixed: bool) -> None:
    asked = dict(scope["headers"])
    cache = b"public, max-age=31536000, immutable" if is_fixed else b"no-cache"
    headers: Headers = [(b"etag", file.etag), (b"cache-control", cache), (b"vary", b"Accept-Encoding")]
    if file.etag in [one.strip().removeprefix(b"W/") for one in asked.get(b"if-none-match", b"").split(b",")]:
        await _answer(scope, send, 304, headers, b"")
        return
    taken = {one.partition(";")[0].strip() for one in asked.get(b"accept-encoding", b"").decode("latin-1").split(",")}
    encoding = next((one for one, _ in ENCODINGS if one in taken and one in file.bodies), "")
    if encoding:
        headers.append((b"content-encoding", encoding.encode()))
    headers.append((b"content-type", file.media_type.encode()))
    await _answer(scope, send, 200, headers, file.bodies[encoding])


async def _answer(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    method = _method(scope)
    if method not in ("GET", "HEAD"):
        status, headers, body = 405, [(b"allow", b"GET, HEAD"), (b"content-type", b"text/plain")], b"Only GET and HEAD."
    if status != 304:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body, "more_body": False})


def _method(scope: Scope) -> str:
    http: HTTPScope = scope  # pyright: ignore[reportAssignmentType]  # the service takes no WebSockets
    return http["method"]
