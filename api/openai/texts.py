"""Answers to questions about texts, as llama.cpp's server gives them."""

from __future__ import annotations

from typing import assert_never

from api.openai.completions_objects import DetokenizedText, TemplatedPrompt, TokenList, TokenNumber
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized


def answer_object(answer: Answer) -> TokenList | DetokenizedText | TemplatedPrompt | TokenNumber:
    match answer:
        case Tokenized(tokens=tokens, pieces=None):
            return {"tokens": list(tokens)}
        case Tokenized(tokens=tokens, pieces=pieces):
            told = zip(tokens, pieces or (), strict=True)
            return {"tokens": [{"id": token, "piece": _piece(piece)} for token, piece in told]}
        case Detokenized(text=text):
            return {"content": text}
        case Templated(prompt=prompt):
            return {"prompt": prompt}
        case Counted(num_tokens=num_tokens):
            return {"num_tokens": num_tokens}
        case _:
            assert_never(answer)


def _piece(piece: bytes) -> str | list[int]:
    """Text, or the bytes of one that is none by itself."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
