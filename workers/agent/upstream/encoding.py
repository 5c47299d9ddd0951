"""Embeddings and ranking on another server."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from paddler.engine import Done, Embedded, Job
from paddler.errors import EngineFailed, InvalidField
from paddler.payload import vector_size
from paddler.vectors import check_earlier_size, pack_vector
from paddler.wire.agent import Embed, Encode
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.upstream.client import UpstreamClient
from workers.agent.upstream.generating import Put
from workers.agent.upstream.server import Server
from workers.agent.upstream.trouble import Broken, Refused

T = TypeVar("T", bound=Struct)

EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
AT_ONCE = 32
"""Inputs of one call: what is done of a request is not lost with the agent."""


class _Vector(Struct):
    index: int
    embedding: list[float]


class _Usage(Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return self.prompt_tokens or self.total_tokens


class Embeddings(Struct):
    data: list[_Vector]
    usage: _Usage | None = None


class _Rank(Struct):
    index: int
    relevance_score: float


class Ranking(Struct):
    results: list[_Rank]
    usage: _Usage | None = None


async def encode(job: Job, payload: Encode, server: Server, client: UpstreamClient, put: Put) -> Done:
    """Put the vectors of each call, and return the end. Raises `UpstreamTrouble`."""
    counts = list(job.embedded)
    for begin in range(len(counts), len(payload.inputs), AT_ONCE):
        texts = payload.inputs[begin : begin + AT_ONCE]
        rows, num_tokens = await _rows(payload, texts, server, client)
        try:
            check_earlier_size(job, vector_size(payload, len(rows[0])))
        except (InvalidField, EngineFailed) as error:
            raise Refused(error) from None
        shares = _split(num_tokens, texts)
        counts += shares
        vectors = tuple(pack_vector(np.array(row), payload) for row in rows)
        put(Embedded(job.request_id, vectors, tuple(shares)))
    return Done(job.request_id, FinishReason.STOP, Usage(prompt_tokens=sum(counts)))


async def _rows(
    payload: Encode, texts: Sequence[str], server: Server, client: UpstreamClient
) -> tuple[list[list[float]], int]:
    if isinstance(payload, Embed):
        # Without `dimensions`, which many servers refuse or ignore: they are shortened here.
        body: dict[str, Any] = {"model": server.model, "input": list(texts), "encoding_format": "float"}
        told = _read(await client.post(EMBEDDINGS, body), Embeddings)
        found = {one.index: one.embedding for one in told.data}
    else:
        body = {"model": server.model, "query": payload.query, "documents": list(texts), "top_n": len(texts)}
        told = _read(await client.post(RERANK, body), Ranking)
        found = {one.index: [one.relevance_score] for one in told.results}
    if sorted(found) != list(range(len(texts))) or not all(found.values()) or len({*map(len, found.values())}) != 1:
        raise Broken(f"the server was asked for {len(texts)} vectors of one size, and answers with others")
    return [found[index] for index in range(len(texts))], told.usage.num_tokens if told.usage else 0


def _read(answer: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise Broken(f"the server's answer is not what was asked for: {error}") from None


def _split(num_tokens: int, texts: Sequence[str]) -> list[int]:
    """The server counts the tokens of a call, the queue those of each input: by their share of the characters."""
    total = sum(map(len, texts))
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    bounds = [num_tokens * end // total for end in ends]
    return [end - begin for begin, end in pairwise(bounds)]
