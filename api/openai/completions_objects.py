"""What `/v1/completions` and the questions about texts answer with, as types."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from api.openai.objects import CompletionUsage


class TextLogprobs(TypedDict):
    """Four lists with an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str


class TextChunkChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str | None


class TextOrigin(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str


class TextCompletion(TextOrigin):
    choices: list[TextChoice]
    usage: CompletionUsage


class TextCompletionChunk(TextOrigin):
    """`usage` as in a chat completion's."""

    choices: list[TextChunkChoice]
    usage: NotRequired[CompletionUsage | None]


class TokenPiece(TypedDict):
    """`piece` is text, or the bytes of one that is none by itself."""

    id: int
    piece: str | list[int]


class TokenList(TypedDict):
    """With their texts if those were asked for."""

    tokens: list[int | TokenPiece]


class DetokenizedText(TypedDict):
    content: str


class TemplatedPrompt(TypedDict):
    prompt: str


class TokenNumber(TypedDict):
    """Of a question that another protocol has asked."""

    num_tokens: int


TOLD = (TokenList, DetokenizedText, TemplatedPrompt, TokenNumber)
