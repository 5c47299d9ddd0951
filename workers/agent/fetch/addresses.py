"""What a URL of a model says without being asked: whether it can be one, its files' names, how it is shown; pure."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

import httpx
from msgspec import Struct

from workers.agent.fetch.errors import FetchError
from workers.agent.shards import shards_of

MAX_NAME = 150
"""Bytes of a file's name; file systems take 255, and ours have endings."""
_NOT_IN_NAMES = re.compile(r"[^\w.+@=-]+")


class Part(Struct, frozen=True):
    """One file of a model: where it comes from, its name in the cache, and whether it is the one that was named."""

    url: str
    name: str
    is_named: bool


def parts_of(url: str) -> tuple[Part, ...]:
    """The file of a URL, or all of a GGUF that was split (`model-00001-of-00003.gguf`), whichever of them is named.
    Raises `FetchError` (`DownloadUrlIsMalformed`)."""
    parsed = _parse(url)
    folder, _, last = parsed.raw_path.decode("ascii").partition("?")[0].rpartition("/")
    shards = shards_of(Path(unquote(last) or "model.gguf"))
    if len(shards) == 1:
        return (Part(url, _file_name(shards[0].name), True),)
    # Percent-encoding may be longer than what it stands for, so the number is put into the name as it was written.
    stem = last[: -len("00001-of-00001.gguf")]
    urls = [parsed.copy_with(raw_path=_path(parsed, f"{folder}/{stem}{shard.name[-19:]}")) for shard in shards]
    named = Path(unquote(last)).name
    pairs = zip(urls, shards, strict=True)
    return tuple(Part(str(one), _file_name(shard.name), shard.name == named) for one, shard in pairs)


def folder_name(parts: tuple[Part, ...]) -> str:
    """Of the folder that has these files: the SHA-256 of the URL, of the first one's."""
    return hashlib.sha256(parts[0].url.encode()).hexdigest()


def shown(url: str) -> str:
    """A URL as people may see it: passwords and signed queries left out."""
    try:
        parsed = httpx.URL(url)
        return str(parsed.copy_with(userinfo=b"", query=None, fragment=None)) or url
    except (httpx.InvalidURL, ValueError):
        return url.split("?")[0].rpartition("@")[2]


def host_of(url: str) -> str:
    """`host`, or `host:port` where the port is not that of the scheme."""
    return httpx.URL(url).netloc.decode("ascii")


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise _malformed(url, str(error)) from error
    if parsed.scheme not in ("http", "https"):
        raise _malformed(url, "it does not begin with http:// or https://")
    if not parsed.host or (parsed.port or 1) > 65535:
        raise _malformed(url, "its port is above 65535" if parsed.host else "it names no host")
    if any(one.isspace() for one in url):
        raise _malformed(url, "it has spaces, which are written %20")
    return parsed


def _malformed(url: str, why: str) -> FetchError:
    return FetchError("DownloadUrlIsMalformed", f"{shown(url)!r} is no URL to download from: {why}")


def _path(parsed: httpx.URL, path: str) -> bytes:
    query = parsed.query
    return path.encode("ascii") + (b"?" + query if query else b"")


def _file_name(name: str) -> str:
    """What is left of it in the alphabet of file names, the last `MAX_NAME` bytes of that."""
    clean = _NOT_IN_NAMES.sub("_", name).lstrip(".") or "model.gguf"
    return clean.encode()[-MAX_NAME:].decode(errors="ignore").lstrip(".")
