"""From token pieces to the text a client gets: whole characters only, ending before a stop string.

Pure. Both engines use it, so that hold-back and hand-over behave alike.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Feed pieces in order with `push`; what it returns is final and may be sent.

    - An incomplete UTF-8 sequence at the end is held back; invalid bytes become U+FFFD.
    - The longest tail that may begin a stop string is held back.
    - The text depends on the bytes alone, never on how they were split into pieces: of several stop strings
      the one that is complete first ends the text, and of those complete at the same character the longest.
    - The first `skip` characters are dropped: a request that continues feeds the pieces of the tokens already
      sent, with the length of the text the client already has, and gets only what is new.

    `stop` strings must not be empty.
    """

    def __init__(self, stop: Sequence[str] = (), *, skip: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self._skip = skip
        self.stopped_by: str | None = None
        """The stop string that has ended the text."""

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    def push(self, piece: bytes) -> str:
        """Text released by this piece. After `is_stopped` became true it is always empty."""
        return self._release(self._decoder.decode(piece), at_end=False)

    def flush(self) -> str:
        """Text released by the end of the output. Nothing may be pushed after it."""
        return self._release(self._decoder.decode(b"", final=True), at_end=True)

    def _release(self, text: str, *, at_end: bool) -> str:
        if self.is_stopped:
            return ""
        if self._stop:
            text = self._held + text
            if (found := _first_stop(text, self._stop)) is not None:
                cut, self.stopped_by = found
                text, self._held = text[:cut], ""
            elif at_end:
                self._held = ""
            elif text:
                kept = len(text) - _longest_beginning(text, self._stop)
                text, self._held = text[:kept], text[kept:]
        if self._skip:
            skipped = min(self._skip, len(text))
            self._skip -= skipped
            text = text[skipped:]
        return text


def _first_stop(text: str, stop: tuple[str, ...]) -> tuple[int, str] | None:
    """Where the stop string begins that is complete first, and which it is; None when there is none."""
    found = [(at + len(word), at, word) for word in stop if (at := text.find(word)) >= 0]
    return min(found)[1:] if found else None


def _longest_beginning(text: str, stop: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that some stop string begins with (but is not)."""
    longest = 0
    for word in stop:
        for size in range(min(len(word) - 1, len(text)), longest, -1):
            if text.endswith(word[:size]):
                longest = size
                break
    return longest
