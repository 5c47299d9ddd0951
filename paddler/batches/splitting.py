"""The lines of a JSONL file that arrives in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

MAX_LINE = 32 * 1024 * 1024
"""Bytes, as the default of `--max-body`."""

UTF8_BOM = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line has more than `MAX_LINE` bytes. `line` counts from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} has more than {MAX_LINE} bytes")
        self.line = line


async def split_lines(pieces: AsyncIterable[bytes], *, max_line: int = MAX_LINE) -> AsyncIterator[tuple[int, bytes]]:
    """Every line that is not blank, without its end, with its number in the file from 1. Raises `LineTooLong`."""
    number = 0
    held: list[bytes] = []
    num_held = 0
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        held.append(first)
        num_held += len(first)
        for following in others:
            number += 1
            if num_held > max_line:
                raise LineTooLong(number)
            if line := _trimmed(b"".join(held), number):
                yield number, line
            held, num_held = [following], len(following)
        if num_held > max_line:
            raise LineTooLong(number + 1)
    if line := _trimmed(b"".join(held), number + 1):
        yield number + 1, line


def _trimmed(line: bytes, number: int) -> bytes:
    return (line.removeprefix(UTF8_BOM) if number == 1 else line).strip()
