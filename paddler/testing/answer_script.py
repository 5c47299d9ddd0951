"""How the scripted engine answers questions about texts.

A text's tokens are its bytes, and those of the words that the engine says are text too. A prompt is counted as it is
when it is sent: by its words.
"""

from __future__ import annotations

from typing import assert_never

from paddler.errors import EngineFailed, InvalidField
from paddler.images import refuse_images
from paddler.testing.script import NUM_WORDS, Faults, faults_of, piece_of, prompt_text
from paddler.wire.agent import ApplyTemplate, CountTokens, Detokenize, Generate, Question, Tokenize
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized


def faults_in(question: Question) -> Faults:
    """What its text asks to go wrong."""
    match question:
        case Tokenize(text=text):
            return faults_of(text, is_resumed=False)
        case Detokenize():
            return Faults()
        case ApplyTemplate(request=request) | CountTokens(request=request):
            return faults_of(prompt_text(request), is_resumed=False)
        case _:
            assert_never(question)


def answer_to(question: Question) -> Answer:
    """Raises `PaddlerError`."""
    match question:
        case Tokenize(text=text, with_pieces=with_pieces):
            tokens = tuple(NUM_WORDS + byte for byte in _checked(text).encode())
            return Tokenized(tokens, tuple(map(piece_of, tokens)) if with_pieces else None)
        case Detokenize(tokens=tokens):
            for index, token in enumerate(tokens):
                if not 0 <= token < NUM_WORDS + 256:
                    raise InvalidField(f"tokens[{index}] is no token here", param=f"tokens[{index}]")
            return Detokenized(b"".join(map(piece_of, tokens)).decode("utf-8", "replace"))
        case ApplyTemplate(request=request):
            return Templated(_prompt(request))
        case CountTokens(request=request):
            return Counted(len(_prompt(request).split()))
        case _:
            assert_never(question)


def _prompt(request: Generate) -> str:
    refuse_images(request, "it is a script")
    return _checked(prompt_text(request))


def _checked(text: str) -> str:
    if "[[fail]]" in text:
        raise EngineFailed("the text says [[fail]]")
    return text
