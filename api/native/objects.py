"""The envelopes of Paddler 4 and what is in them, as types."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from api.native.schema import RmsNormMethod


class ErrorFacts(TypedDict):
    code: int
    description: str


class ErrorOf(TypedDict):
    request_id: str
    error: ErrorFacts


class NativeError(TypedDict):
    Error: ErrorOf


class NativeUsage(TypedDict):
    prompt_tokens: int
    cached_prompt_tokens: int
    input_image_tokens: int
    input_audio_tokens: int
    content_tokens: int
    reasoning_tokens: int
    tool_call_tokens: int
    undeterminable_tokens: int


class NativeSummary(TypedDict):
    usage: NativeUsage


class ParsedArguments(TypedDict, total=False):
    """One of the two."""

    ValidJson: Any
    InvalidJson: str


class ParsedCall(TypedDict):
    id: str
    name: str
    arguments: ParsedArguments


class GeneratedToken(TypedDict, total=False):
    """Exactly one of them. The last result of a request is `Done`, or one of the four that say why it was refused."""

    ContentToken: str
    ReasoningToken: str
    ToolCallToken: str
    UndeterminableToken: str
    ToolCallParsed: list[ParsedCall]
    Done: NativeSummary
    ChatTemplateError: str
    GrammarSyntaxError: str
    ImageDecodingFailed: str
    MultimodalNotSupported: str


class GenerationResult(TypedDict):
    GeneratedToken: GeneratedToken


class GenerationOf(TypedDict):
    """`generated_by` is the name of the agent."""

    generated_by: str | None
    request_id: str
    response: GenerationResult


class NativeGeneration(TypedDict):
    Response: GenerationOf


class DocumentEmbedding(TypedDict):
    embedding: tuple[float, ...]
    normalization_method: Literal["L2", "None"] | RmsNormMethod
    pooling_type: Literal["Unspecified"]
    source_document_id: str


class OneEmbedding(TypedDict):
    Embedding: DocumentEmbedding


class EmbeddingResult(TypedDict):
    Embedding: Literal["Done"] | OneEmbedding


class EmbeddingOf(TypedDict):
    generated_by: str | None
    request_id: str
    response: EmbeddingResult


class NativeEmbedding(TypedDict):
    Response: EmbeddingOf


ENVELOPES = (NativeGeneration, NativeError)
EMBEDDING_ENVELOPES = (NativeEmbedding, NativeGeneration, NativeError)
"""An image or a grammar has no place in a batch, but a request may be refused by a result all the same."""
