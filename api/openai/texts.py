"""Answers to questions about texts, as llama.cpp's server gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import msgspec

from api.openai.completions_objects import DetokenizedText, TemplatedPrompt, TokenNumber, TokenPiece
from paddler.errors import EngineFailed
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized

RUN = 2048
"""Tokens of a chunk: with their pieces 2 ms of work, and a text of 4 MiB has two million."""

_encode = msgspec.json.Encoder().encode


def answer_chunks(answer: Answer) -> Iterator[bytes]:
    """An object in JSON, in chunks."""
    match answer:
        case Tokenized(tokens=tokens, pieces=pieces):
            if pieces is not None and len(pieces) != len(tokens):
                raise EngineFailed(f"{len(tokens)} tokens have {len(pieces)} pieces; the agent's log may say why.")
            yield b'{"tokens":['
            for start in range(0, len(tokens), RUN):
                some: list[int] | list[TokenPiece] = list(tokens[start : start + RUN])
                if pieces is not None:
                    told = zip(some, pieces[start : start + RUN], strict=True)
                    some = [{"id": token, "piece": _piece(piece)} for token, piece in told]
                yield (b"," if start else b"") + _encode(some)[1:-1]
            yield b"]}"
        case Detokenized(text=text):
            yield _encode(DetokenizedText(content=text))
        case Templated(prompt=prompt):
            yield _encode(TemplatedPrompt(prompt=prompt))
        case Counted(num_tokens=num_tokens):
            yield _encode(TokenNumber(num_tokens=num_tokens))
        case _:
            assert_never(answer)


def _piece(piece: bytes) -> str | list[int]:
    """Text, or the bytes of one that is none by itself."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
