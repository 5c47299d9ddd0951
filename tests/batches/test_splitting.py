"""Lines out of pieces of any size."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from paddler.batches.splitting import LineTooLong, split_lines

pytestmark = pytest.mark.anyio

TEXT = b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b":"\xe2\x98\x83"}\n{"c":3}'
LINES = [(1, b'{"a":1}'), (4, '{"b":"☃"}'.encode()), (5, b'{"c":3}')]


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def split(data: bytes, size: int, *, max_line: int = 1000) -> list[tuple[int, bytes]]:
    return [found async for found in split_lines(pieces(data, size), max_line=max_line)]


@pytest.mark.parametrize("size", range(1, len(TEXT) + 2))
async def test_lines_are_the_same_however_they_arrive(size: int) -> None:
    assert await split(TEXT, size) == LINES
    assert await split(TEXT + b"\n", size) == LINES


async def test_nothing_has_no_lines() -> None:
    assert await split(b"", 1) == []
    assert await split(b"\n \n\n", 2) == []


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_line_is_refused_before_it_is_held(size: int) -> None:
    for data in (b"ab\nabcdef\n", b"ab\nabcdefghi"):
        with pytest.raises(LineTooLong) as refused:
            await split(data, size, max_line=5)
        assert refused.value.line == 2
    assert await split(b"abcde\nabcde", size, max_line=5) == [(1, b"abcde"), (2, b"abcde")]
