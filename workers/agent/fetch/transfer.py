"""One file from a web server to the cache: resumed where it broke off, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
from msgspec.structs import replace

from paddler.clock import SystemClock
from paddler.remedies import Course
from workers.agent.fetch.addresses import shown
from workers.agent.fetch.answers import Answer, range_headers, read_answer
from workers.agent.fetch.cache import ModelCache, check_room, telling_of_disk
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.notes import Note, discard, install, partial_of, read_note, write_note

MAGIC = b"GGUF"
ROOM_STEP = 64 * 1024 * 1024
"""Bytes between two looks at what is free on the disk."""
HASH_BYTES = 1024 * 1024

Tell = Callable[[int, int | None], None]
"""Bytes done and in all, of one file."""


def transfer(client: httpx.Client, url: str, path: Path, cache: ModelCache, *, sha256: str | None, tell: Tell) -> None:
    """Download to `path`, whose folder is locked. Raises `FetchError`, and whatever `tell` does."""
    partial = partial_of(path)
    may_start_anew = True
    while True:
        note, have = _beginning(partial)
        if note is not None and have == note.size:
            break
        headers = range_headers(note, have)
        with _telling_of_network(url) as began, client.stream("GET", url, headers=headers) as response:
            now = SystemClock().wall()
            answer = read_answer(shown(url), response.status_code, response.headers, begun=note, have=have, now=now)
            began.append(True)
            if answer is None:
                if not may_start_anew:
                    raise FetchError("DownloadServerErrored", f"{shown(url)} changes with each request")
                may_start_anew = False
                discard(partial)
                continue
            _receive(response, answer, partial, cache, tell)
    _finish(path, sha256, tell)


def sha256_of(path: Path, tell: Tell) -> str:
    """In hex. `tell` hears now and then that all of it is there, so that it can end this."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)
            tell(size, size)
    return digest.hexdigest()


def _beginning(partial: Path) -> tuple[Note | None, int]:
    """What is there of the file, if it can be gone on from; else that is discarded."""
    with telling_of_disk(partial.parent):
        note = read_note(partial)
        have = partial.stat().st_size if partial.exists() else 0
        is_whole = note is not None and have == note.size
        if note is None or have == 0 or (note.size or have) < have or not (is_whole or note.etag or note.modified):
            discard(partial)
            return None, 0
        return note, have


def _receive(response: httpx.Response, answer: Answer, partial: Path, cache: ModelCache, tell: Tell) -> None:
    note, done = answer.note, answer.start
    check_room(cache, partial.parent, 0 if answer.end is None else answer.end - done)
    head = _head_of(partial) if done else b""
    tell(done, note.size)
    with _writing(partial, answer) as write:
        look_at = done + ROOM_STEP
        for block in response.iter_bytes():
            if done < len(MAGIC):
                head += block
                _check_magic(head, note.url)
            done += len(block)
            if answer.end is not None and done > answer.end:
                discard(partial)
                raise FetchError("DownloadInterrupted", f"{note.url} sent more than the {answer.end:,} bytes it has")
            write(block)
            tell(done, note.size)
            if done >= look_at:
                check_room(cache, partial.parent, 0)
                look_at = done + ROOM_STEP
    if answer.end is not None and done < answer.end:
        raise FetchError("DownloadInterrupted", f"{note.url} ended after {done:,} of {answer.end:,} bytes")
    if done < len(MAGIC):
        discard(partial)
        what = f"what {note.url} answers is no GGUF file: it has {done} bytes"
        raise FetchError("ModelCannotBeLoaded", what, course=Course.GIVES_UP)
    if note.size is None:
        with telling_of_disk(partial.parent):
            write_note(partial, replace(note, size=done))


@contextlib.contextmanager
def _writing(partial: Path, answer: Answer) -> Generator[Callable[[bytes], object]]:
    with telling_of_disk(partial.parent), partial.open("r+b" if answer.start else "wb") as file:
        file.seek(answer.start)
        # The note of another version comes only now that none of the older bytes is left.
        write_note(partial, answer.note)
        yield file.write


def _head_of(partial: Path) -> bytes:
    with partial.open("rb") as file:
        return file.read(len(MAGIC))


def _check_magic(head: bytes, url: str) -> None:
    if not MAGIC.startswith(head[: len(MAGIC)]):
        what = (
            f"what {url} answers is no GGUF file: it begins with {head[:16]!r}. The URL must be that of the file itself"
        )
        raise FetchError("ModelCannotBeLoaded", what, course=Course.GIVES_UP)


def _finish(path: Path, sha256: str | None, tell: Tell) -> None:
    partial = partial_of(path)
    with telling_of_disk(path.parent):
        note = read_note(partial) or Note(url="")
        size = partial.stat().st_size
        if sha256 is not None:
            found = sha256_of(partial, tell)
            if found != sha256:
                discard(partial)
                what = f"{note.url} has the SHA-256 {found}, not {sha256} as the desired state says"
                raise FetchError("ModelCacheIsCorrupted", what)
        # Renaming keeps the time.
        install(path, replace(note, size=size, sha256=sha256, mtime_ns=partial.stat().st_mtime_ns))


@contextlib.contextmanager
def _telling_of_network(url: str) -> Generator[list[bool]]:
    """What happens on the way becomes a `FetchError`; the list has something in it when the answer has begun."""
    began: list[bool] = []
    try:
        yield began
    except httpx.TooManyRedirects as error:
        raise FetchError("DownloadServerRejectedRequest", f"{shown(url)} redirects in a circle") from error
    except httpx.UnsupportedProtocol as error:
        what = f"{shown(url)} redirects to what is neither http:// nor https://"
        raise FetchError("DownloadServerRejectedRequest", what) from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        why = str(error) or type(error).__name__
        if began:
            raise FetchError("DownloadInterrupted", f"{shown(url)} broke off: {why}") from error
        raise FetchError("DownloadServerIsUnreachable", f"{shown(url)} does not answer: {why}") from error
