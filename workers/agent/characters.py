"""Which tokens are whole characters. llama.cpp's grammars take any bytes for UTF-8, and what is none for one character;
the client gets several U+FFFD for it, and a string longer than its schema allows."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


def tail_of(data: bytes) -> bytes | None:
    """The beginning of a character that some bytes end with. None if they are no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return None
    return decoder.getstate()[0]


def partial_tokens(pieces: Sequence[bytes]) -> list[int]:
    """Those that begin or end within a character, or are no part of one."""
    return [token for token, piece in enumerate(pieces) if not piece.isascii() and tail_of(piece) != b""]
