"""What another model has said, in this one's tokens: a request whose agent has changed its model goes on from the text.

The text is what the client has, so the tokens must give it, however unusual the way they cut it.
"""

from __future__ import annotations

import numpy as np

from workers.agent.llama import Model
from workers.agent.tokens import TokenArray

_MARK = "\n"
"""Some vocabularies put a space before a text; behind this it would be in the middle of one."""


def retold(text: str, model: Model, pieces: list[bytes]) -> TokenArray:
    """Tokens whose `pieces`, the bytes that each gives to the text, are `text`, without the characters that there are
    no pieces for: some vocabularies lack a byte."""
    known = _known(model, pieces)
    wanted = "".join(character for character in text if _can_say(character, known)).encode("utf-8", "replace")
    text = wanted.decode()
    # Marks of reasoning and calls are control tokens for many models, and text for others.
    for has_control in (True, False):
        for tokens in (model.tokenize(text, has_control=has_control), _behind_mark(text, model, has_control)):
            if tokens is not None and said_by(tokens, pieces) == wanted:
                return tokens
    return _piece_by_piece(wanted, known)


def said_by(tokens: TokenArray, pieces: list[bytes]) -> bytes:
    """What tokens give to the text."""
    ids: list[int] = tokens.tolist()
    return b"".join(pieces[token] for token in ids)


def _known(model: Model, pieces: list[bytes]) -> dict[bytes, int]:
    """A token for each piece."""
    known: dict[bytes, int] = {}
    for token, piece in enumerate(pieces):
        if piece and token not in model.end_tokens:
            known.setdefault(piece, token)
    return known


def _can_say(character: str, known: dict[bytes, int]) -> bool:
    data = character.encode("utf-8", "replace")
    return data in known or all(bytes([byte]) in known for byte in data)


def _behind_mark(text: str, model: Model, has_control: bool) -> TokenArray | None:
    mark, tokens = (model.tokenize(one, has_control=has_control) for one in (_MARK, _MARK + text))
    begins_alike = len(tokens) >= len(mark) and bool((tokens[: len(mark)] == mark).all())
    return tokens[len(mark) :] if begins_alike else None


def _piece_by_piece(wanted: bytes, known: dict[bytes, int]) -> TokenArray:
    """The longest piece each time that leaves something that can be said, which a whole character does."""
    longest, at = max(map(len, known), default=0), 0
    tokens: list[int] = []
    while at < len(wanted):
        for size in range(min(longest, len(wanted) - at), 0, -1):
            end = at + size
            is_whole = end == len(wanted) or wanted[end] & 0xC0 != 0x80
            if (is_whole or size == 1) and (token := known.get(wanted[at:end])) is not None:
                tokens.append(token)
                at = end
                break
        else:
            at += 1  # no byte of what `_can_say` let through comes here
    return np.array(tokens, np.int32)
