"""What another model has said, in this one's tokens: a request whose agent has changed its model goes on from the text.

The text is what the client has, so the tokens must give exactly it, however unusual the way they cut it.
"""

from __future__ import annotations

import numpy as np

from paddler.errors import EngineFailed
from workers.agent.llama import Model
from workers.agent.tokens import TokenArray

_MARK = "\n"
"""Some vocabularies put a space before a text; behind this it would be in the middle of one."""


def retold(text: str, model: Model, pieces: list[bytes]) -> TokenArray:
    """Tokens whose `pieces`, the bytes that each gives to the text, are `text`. Raises `EngineFailed` when there are
    none: then the vocabulary lacks a character."""
    wanted = text.encode("utf-8", "replace")
    # Marks of reasoning and calls are control tokens for many models, and text for others.
    for has_control in (True, False):
        for tokens in (model.tokenize(text, has_control=has_control), _behind_mark(text, model, has_control)):
            if tokens is not None and _bytes_of(tokens, pieces) == wanted:
                return tokens
    return _piece_by_piece(wanted, model, pieces)


def _behind_mark(text: str, model: Model, has_control: bool) -> TokenArray | None:
    mark, tokens = (model.tokenize(one, has_control=has_control) for one in (_MARK, _MARK + text))
    begins_alike = len(tokens) >= len(mark) and bool((tokens[: len(mark)] == mark).all())
    return tokens[len(mark) :] if begins_alike else None


def _bytes_of(tokens: TokenArray, pieces: list[bytes]) -> bytes:
    ids: list[int] = tokens.tolist()
    return b"".join(pieces[token] for token in ids)


def _piece_by_piece(wanted: bytes, model: Model, pieces: list[bytes]) -> TokenArray:
    """The longest piece each time."""
    known: dict[bytes, int] = {}
    for token, piece in enumerate(pieces):
        if piece and token not in model.end_tokens:
            known.setdefault(piece, token)
    longest, at = max(map(len, known), default=0), 0
    tokens: list[int] = []
    while at < len(wanted):
        for size in range(min(longest, len(wanted) - at), 0, -1):
            if (token := known.get(wanted[at : at + size])) is not None:
                tokens.append(token)
                at += size
                break
        else:
            raise EngineFailed(
                "the request was begun by an agent with another model, and this one has no tokens for what it said: "
                "send it again"
            )
    return np.array(tokens, np.int32)
