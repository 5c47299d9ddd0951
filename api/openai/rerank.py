"""`POST /v1/rerank`, as Jina and Cohere have it: from a body to payloads for the queue, from scores to the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.openai.batch import MIN_TICKET, usage_of
from api.openai.label import RerankLabel
from api.openai.objects import PromptUsage, RankedDocument, Ranking
from api.validation import decode_body
from paddler.errors import EngineFailed, InvalidField
from paddler.jobs.heard import Heard
from paddler.routing.batches import split_evenly
from paddler.vectors import unpack_vector
from paddler.wire.agent import Rerank
from paddler.wire.balancer import Usage

RERANK_PATHS = ["/v1/rerank", "/v1/reranking", "/v2/rerank", "/rerank", "/reranking"]
"""Jina's and Cohere's first version, llama-server's, Cohere's second."""
MAX_DOCUMENTS = 2048
"""As many as Jina takes."""


class TextDocument(Struct, forbid_unknown_fields=True):
    text: str


class RerankRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/rerank`; `null` means absent."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    query: Annotated[str, Meta(min_length=1)]
    documents: Annotated[list[str | TextDocument], Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    return_documents: bool | None = None


class RerankCall(Struct, frozen=True):
    """A checked request. `top_n` None is all."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    returns_documents: bool = False

    def tickets(self, num_slots: int, *, is_one: bool) -> list[Rerank]:
        """The payloads, each for one slot, as many as there are slots or as are worth it; with `is_one` one."""
        parts = split_evenly(len(self.documents), least=MIN_TICKET, most=1 if is_one else num_slots)
        return [
            Rerank(query=self.query, documents=self.documents[part.start : part.stop], first=part.start)
            for part in parts
        ]

    def label(self, ticket: Rerank) -> RerankLabel:
        return RerankLabel(self.model, ticket.first)

    def gather(self, parts: Sequence[Heard]) -> Iterable[bytes]:
        """The answer of finished requests; see `render`."""
        scores = [score for part in parts for score in part.vectors]
        return self.render(parts[0].reply.request_id, scores, usage_of(parts))

    def render(self, request_id: str, scores: Sequence[bytes], usage: Usage) -> Iterable[bytes]:
        """Raises `EngineFailed` when there is not one score for each document."""
        if len(scores) != len(self.documents):
            raise EngineFailed(
                f"{len(self.documents)} documents gave {len(scores)} scores; the agents' logs may say why."
            )
        documents = self.documents if self.returns_documents else None
        label = RerankLabel(self.model)
        return [rerank_object(request_id, scores, usage, label, top_n=self.top_n, documents=documents)]


DECODER = msgspec.json.Decoder(RerankRequest)


def read_rerank_call(body: bytes) -> RerankCall:
    """Decode, check and translate a body. Raises `InvalidField`, or `ClientException` for bytes that are no JSON."""
    request = decode_body(body, DECODER, {})
    documents = tuple(one if isinstance(one, str) else one.text for one in request.documents)
    for index, document in enumerate(documents):
        if not document:
            raise InvalidField(f"`documents[{index}]` must not be empty.", param=f"documents[{index}]")
    return RerankCall(request.model, request.query, documents, request.top_n, bool(request.return_documents))


def rerank_object(
    request_id: str,
    scores: Sequence[bytes],
    usage: Usage,
    label: RerankLabel,
    *,
    top_n: int | None = None,
    documents: Sequence[str] | None = None,
) -> bytes:
    """The answer in JSON, the best first and of equals the first one. A score is the classifier's own output. Raises
    `EngineFailed` for one that is no finite number."""
    numbers = [unpack_vector(score) for score in scores]
    if not all(len(one) == 1 and math.isfinite(one[0]) for one in numbers):
        raise EngineFailed("the agents gave something else than a score for each document: their model may be broken.")
    order = sorted(range(len(numbers)), key=lambda index: -numbers[index][0])[:top_n]
    results: list[RankedDocument] = []
    for index in order:
        result: RankedDocument = {"index": label.first + index, "relevance_score": numbers[index][0]}
        if documents is not None:
            result["document"] = {"text": documents[index]}
        results.append(result)
    total: PromptUsage = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    answer: Ranking = {"id": request_id, "object": "list", "model": label.model, "results": results, "usage": total}
    return msgspec.json.encode(answer)
