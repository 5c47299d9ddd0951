"""`Url`: a model from a web server, in the cache of the agent's host."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import httpx
from msgspec import Struct
from msgspec.structs import replace

from paddler import __version__
from workers.agent.fetch.addresses import Part, folder_name, host_of, parts_of, shown
from workers.agent.fetch.answers import read_size
from workers.agent.fetch.cache import ModelCache, Progress, check_room, locked, make_folder, telling_of_disk
from workers.agent.fetch.notes import Note, read_note, size_of_partial, write_note
from workers.agent.fetch.tokens import read_token
from workers.agent.fetch.totals import Totals
from workers.agent.fetch.transfer import sha256_of, transfer
from workers.agent.fetch.upkeep import remove_old_partials

MAX_REDIRECTS = 10


def fetch_url(url: str, sha256: str | None, cache: ModelCache, report: Progress) -> tuple[Path, ...]:
    """The files of the model. `sha256`, in hex, is that of the file that the URL names. Raises `FetchError`, and
    whatever `report` does."""
    parts = parts_of(url)
    folder = cache.downloads / folder_name(parts)
    wanted = [_Wanted(part, folder / part.name, sha256.lower() if sha256 and part.is_named else None) for part in parts]
    if not all(_is_there(one) for one in wanted):
        make_folder(folder)
        with locked(folder / "lock", "CacheCannotAcquireLock"), _client(cache, url) as client:
            remove_old_partials(cache, but_in=folder)
            _download(client, wanted, cache, report)
    return tuple(one.path for one in wanted)


class _Wanted(Struct, frozen=True):
    part: Part
    path: Path
    sha256: str | None


def _download(client: httpx.Client, wanted: list[_Wanted], cache: ModelCache, report: Progress) -> None:
    totals = Totals([one.part.name for one in wanted], report)
    missing: list[_Wanted] = []
    for one in wanted:
        # Another process may have been here before, and a checksum may not have been asked for then.
        if _is_there(one) or _is_right(one, totals):
            totals.finish(one.part.name, one.path.stat().st_size)
        else:
            missing.append(one)
    if len(wanted) > 1:
        needed = 0
        for one in missing:
            size = _size_of(client, one.part.url)
            if size is None:  # a server that does not tell of one will not tell of a thousand
                break
            totals.expect(one.part.name, size)
            needed += size - size_of_partial(one.path)
        check_room(cache, wanted[0].path.parent, needed)
    for one in missing:
        tell = partial(totals.tell, one.part.name)
        transfer(client, one.part.url, one.path, cache, sha256=one.sha256, tell=tell)
        totals.finish(one.part.name, one.path.stat().st_size)


def _is_there(one: _Wanted) -> bool:
    """Whether the cache is known to have the whole file, with this checksum."""
    with telling_of_disk(one.path.parent):
        try:
            found = one.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        note = read_note(one.path)
        if note is not None and note.size not in (None, found.st_size):
            return False
        if one.sha256 is None:
            return True
        return note is not None and (note.sha256, note.mtime_ns) == (one.sha256, found.st_mtime_ns)


def _is_right(one: _Wanted, totals: Totals) -> bool:
    """Whether the file that is there has the checksum. One that has not keeps its place until the right one has come:
    it may be in use, and the checksum wrong."""
    with telling_of_disk(one.path.parent):
        if one.sha256 is None or not one.path.is_file():
            return False
        found, note = one.path.stat(), read_note(one.path) or Note(url=shown(one.part.url))
        if note.size not in (None, found.st_size):
            return False
        if note.sha256 is None or note.mtime_ns != found.st_mtime_ns:
            digest = sha256_of(one.path, partial(totals.tell, one.part.name))
            note = replace(note, size=found.st_size, sha256=digest, mtime_ns=found.st_mtime_ns)
            write_note(one.path, note)
        return note.sha256 == one.sha256


def _client(cache: ModelCache, url: str) -> httpx.Client:
    """Leaves the token away where a redirect leads to another host."""
    headers = {"user-agent": f"paddler/{__version__}", "accept": "*/*", "accept-encoding": "identity"}
    token_file = cache.token_files.get(host_of(url))
    if token_file is not None:
        headers["authorization"] = f"Bearer {read_token(token_file, 'DownloadServerDeniedAccess')}"
    return httpx.Client(headers=headers, timeout=cache.timeout_s, follow_redirects=True, max_redirects=MAX_REDIRECTS)


def _size_of(client: httpx.Client, url: str) -> int | None:
    """None if the server does not say; why not, the download will find out."""
    with contextlib.suppress(httpx.HTTPError):
        answer = client.head(url)
        if answer.status_code == 200:
            return read_size(answer.headers)
    return None
