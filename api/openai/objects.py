"""What OpenAI's protocol answers with, as types: those that render say that they return them, and `/openapi.json` is
made of them."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from paddler.model_facts import ModelFacts


class ErrorObject(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(TypedDict):
    error: ErrorObject


class PromptTokensDetails(TypedDict):
    """`cached_tokens` were in the agent's KV cache."""

    cached_tokens: int


class CompletionUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class PromptUsage(TypedDict):
    """Of what has no output."""

    prompt_tokens: int
    total_tokens: int


class CalledFunction(TypedDict):
    """`arguments` is JSON text."""

    name: str
    arguments: str


class CallObject(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class MessageObject(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[CallObject]]


class LikelyToken(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class SampledToken(LikelyToken):
    top_logprobs: list[LikelyToken]


class LogprobsObject(TypedDict):
    content: list[SampledToken]
    refusal: None


FinishWord = Literal["stop", "length", "tool_calls"]


class ChoiceObject(TypedDict):
    index: int
    message: MessageObject
    logprobs: LogprobsObject | None
    finish_reason: FinishWord


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChoiceObject]
    usage: CompletionUsage


class FunctionDelta(TypedDict):
    name: NotRequired[str]
    arguments: str


class CallDelta(TypedDict):
    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class DeltaObject(TypedDict):
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[CallDelta]]


class ChunkChoice(TypedDict):
    index: int
    delta: DeltaObject
    logprobs: LogprobsObject | None
    finish_reason: FinishWord | None


class ChatCompletionChunk(TypedDict):
    """`usage` is there with `stream_options.include_usage`: null in all chunks but the last, which has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[CompletionUsage | None]


class EmbeddingObject(TypedDict):
    """`embedding` is little-endian float32 in base64 where that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: tuple[float, ...] | str


class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: PromptUsage


class DocumentObject(TypedDict):
    text: str


class RankedDocument(TypedDict):
    index: int
    relevance_score: float
    document: NotRequired[DocumentObject]


class Ranking(TypedDict):
    """The best first. A score is the classifier's own output."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankedDocument]
    usage: PromptUsage


class ModelObject(TypedDict):
    """`abilities` and `meta` while agents are known that tell them."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["paddler"]
    abilities: NotRequired[list[str]]
    meta: NotRequired[ModelFacts]


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelObject]
