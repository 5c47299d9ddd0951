"""Which server an agent fronts, and how."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, structs

DEFAULT_TIMEOUT_MS = 300_000
DEFAULT_INTERVAL_MS = 10_000


class UpstreamSettings(Struct, frozen=True, kw_only=True):
    """`url` is the root of the server, without `/v1`. Of `key_file` and `key` at most one is set; the file is read anew
    when the server refuses what was in it. `model` None is the only one that the server has, `model_name` None that
    one's name. `slots` None is as many as the server says. `host` None is the URL's own.

    `timeout_s` is how long the server may say nothing to a request, `interval_s` the time between two looks at it.
    `context_size` is taken where the server does not tell."""

    url: str
    key_file: Path | None = None
    key: str | None = None
    model: str | None = None
    model_name: str | None = None
    slots: int | None = None
    host: str | None = None
    context_size: int = 8192
    timeout_s: float = DEFAULT_TIMEOUT_MS / 1000
    interval_s: float = DEFAULT_INTERVAL_MS / 1000

    def __post_init__(self) -> None:
        structs.force_setattr(self, "url", root_of(self.url))

    def read_key(self) -> str | None:
        """Raises `OSError`, or `ValueError` for a file that holds no key."""
        if self.key_file is None:
            return self.key
        key = self.key_file.read_text("utf-8").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"{self.key_file} holds no key: it has to be one line of visible characters")
        return key


def root_of(url: str) -> str:
    """A server's URL without `/v1` and slashes at its end. Raises `ValueError` saying what is wrong."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of a server, such as http://127.0.0.1:8080")
    if parts.query or parts.fragment:
        raise ValueError("the URL of a server has neither ? nor #")
    if parts.username or parts.password:
        raise ValueError("a key does not belong into the URL, which is shown: put it into a file")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: the port is none between 0 and 65535") from None
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def host_without_port(url: str) -> str:
    """What a virtual host is usually called."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host
