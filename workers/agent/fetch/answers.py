"""What the head of a server's answer says of the file behind it; pure.

Ranges, validators and `If-Range` as RFC 9110 has them (sections 13 and 14).
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

from msgspec import Struct

from paddler.remedies import Course
from workers.agent.fetch.errors import FetchError
from workers.agent.fetch.notes import Note

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PASSING = (408, 425, 429)
"""Refusals of the moment, not of the file."""


class Answer(Struct, frozen=True):
    """The body has the file's bytes from `start` to `end` (None: nobody knows)."""

    note: Note
    start: int
    end: int | None


def range_headers(note: Note | None, have: int) -> dict[str, str]:
    """Asks for what comes behind the first `have` bytes, if they are still those of this version of the file."""
    validator = note and (note.etag or note.modified)
    return {"Range": f"bytes={have}-", "If-Range": validator} if have and validator else {}


def read_answer(
    url: str, status: int, headers: Mapping[str, str], *, begun: Note | None, have: int, now: float
) -> Answer | None:
    """None: what is there of the file is no beginning of what the server has now; ask again for all of it.

    `url` is as people may see it, `headers` are looked up in lower case, `have` are the bytes that were not asked for,
    `now` is seconds since the epoch. Raises `FetchError`."""
    if status == 200:
        return _whole(url, headers)
    if have and status == 206:
        return _rest(url, headers, begun, have)
    if have and status == 416:
        return None
    raise _refusal(url, status, headers, now)


def _whole(url: str, headers: Mapping[str, str]) -> Answer:
    if headers.get("content-encoding", "identity") != "identity":
        # Its length and its version are those of the compressed form.
        return Answer(Note(url=url), 0, None)
    size = read_size(headers)
    etag = headers.get("etag")
    is_strong = etag is not None and not etag.startswith("W/")
    note = Note(url=url, size=size, etag=etag if is_strong else None, modified=headers.get("last-modified"))
    return Answer(note, 0, size)


def _rest(url: str, headers: Mapping[str, str], begun: Note | None, have: int) -> Answer | None:
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if begun is None or found is None or int(found[1]) != have:
        return None
    end = int(found[2]) + 1
    size = begun.size if found[3] == "*" else int(found[3])
    # A server that knows nothing of If-Range answers with the rest of another version.
    is_other = any(
        old is not None and new is not None and old != new
        for old, new in (
            (begun.etag, headers.get("etag")),
            (begun.modified, headers.get("last-modified")),
            (begun.size, size),
        )
    )
    length = _number(headers.get("content-length"))
    if is_other or end <= have or (size is not None and end > size) or length not in (None, end - have):
        return None
    return Answer(Note(url=url, size=size, etag=begun.etag, modified=begun.modified), have, end)


def _refusal(url: str, status: int, headers: Mapping[str, str], now: float) -> FetchError:
    what = f"{url} answers {status}"
    asked_s = retry_after_s(headers.get("retry-after"), now)
    if status in (401, 403):
        return FetchError("DownloadServerDeniedAccess", what)
    if status in (404, 410):
        return FetchError("ModelDoesNotExistAtUrl", what)
    if status in _PASSING:
        return FetchError("DownloadServerRejectedRequest", what, course=Course.RETRIES, asked_s=asked_s)
    if 400 <= status < 500:
        return FetchError("DownloadServerRejectedRequest", what)
    more = "" if status >= 500 else ", which brings no file"
    return FetchError("DownloadServerErrored", what + more, asked_s=asked_s)


def retry_after_s(value: str | None, now: float) -> float | None:
    """Of the header `Retry-After`, in either of its forms: seconds, or a date."""
    if not value:
        return None
    if (seconds := _number(value.strip())) is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def read_size(headers: Mapping[str, str]) -> int | None:
    """Bytes of the whole file, of an answer 200."""
    return _number(headers.get("content-length"))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
