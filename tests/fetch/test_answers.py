"""What the head of an answer means."""

from __future__ import annotations

import pytest

from workers.agent.fetch.answers import Answer, range_headers, read_answer, retry_after_s
from workers.agent.fetch.notes import Note

HALF = Note(url="u", size=100, etag='"a"', modified="Tue, 01 Sep 2026 10:00:00 GMT")
NOON = 1_000_000_000.0  # 2001-09-09 01:46:40 GMT


def rest(headers: dict[str, str], begun: Note = HALF, have: int = 50) -> Answer | None:
    return read_answer("u", 206, headers, begun=begun, have=have, now=NOON)


def test_the_rest_of_a_file() -> None:
    assert rest({"content-range": "bytes 50-99/100", "etag": '"a"', "content-length": "50"}) == Answer(HALF, 50, 100)
    assert rest({"content-range": "bytes 50-79/100"}) == Answer(HALF, 50, 80)
    assert rest({"content-range": "bytes 50-99/*"}) == Answer(HALF, 50, 100)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": "bytes 50-99"},
        {"content-range": "bytes 49-99/100"},
        {"content-range": "bytes 51-99/100"},
        {"content-range": "bytes 50-49/100"},
        {"content-range": "bytes 50-100/100"},
        {"content-range": "bytes 50-99/101"},
        {"content-range": "bytes 50-99/100", "content-length": "51"},
        {"content-range": "bytes 50-99/100", "etag": '"b"'},
        {"content-range": "bytes 50-99/100", "last-modified": "Wed, 02 Sep 2026 10:00:00 GMT"},
    ],
)
def test_no_rest_of_that_file(headers: dict[str, str]) -> None:
    assert rest(headers) is None


def test_what_is_asked_for() -> None:
    assert range_headers(HALF, 50) == {"Range": "bytes=50-", "If-Range": '"a"'}
    assert range_headers(HALF, 0) == range_headers(None, 0) == range_headers(Note(url="u", size=9), 5) == {}


def test_retry_after() -> None:
    assert retry_after_s("120", NOON) == 120
    assert retry_after_s("Sun, 09 Sep 2001 01:48:40 GMT", NOON) == 120
    assert retry_after_s("Sun, 09 Sep 2001 01:40:00 GMT", NOON) == 0
    for nothing in (None, "", "soon", "-1", "9" * 30, "Sun, 99 Sep 2001 01:48:40 GMT"):
        assert retry_after_s(nothing, NOON) is None
