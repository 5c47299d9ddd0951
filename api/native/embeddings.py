"""`GenerateEmbeddingBatch`: as many requests of the queue as the pool has slots, more where one would have more
documents than `embedding_batch_size` of the desired state; their vectors are lines as soon as a request has ended, in
whatever order that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import Struct
from msgspec.structs import replace

from api.connection import Outgoing, run_while_connected
from api.exchange import Submit as SubmitCall
from api.native.envelope import Envelopes
from api.native.errors import error_line
from api.native.lines import HEADERS, EmptyLines
from api.native.objects import DocumentEmbedding
from api.native.schema import Document, EmbeddingParams, RmsNormMethod
from api.openai.batch import MIN_TICKET
from api.openai.label import EmbeddingLabel, encode_label
from api.parts import Part, follow_parts
from api.validation import decode_body
from paddler.clock import Clock
from paddler.errors import EngineFailed
from paddler.ids import new_request_id
from paddler.jobs.gateway import DEFAULT_POOL, Gateway, Submit
from paddler.routing.batches import split_evenly
from paddler.vectors import unpack_vector
from paddler.wire.agent import DEFAULT_RMS_EPSILON, Embed, Normalization
from paddler.wire.balancer import Finished, Opened, Tokens

_encode = msgspec.json.Encoder().encode
DECODER = msgspec.json.Decoder(EmbeddingParams)
_METHODS: dict[str, Normalization] = {"L2": "l2", "None": "none"}


class EmbeddingBatch(Struct, frozen=True):
    """A checked batch; `method` is what the client called the normalisation."""

    documents: Sequence[Document]
    method: Any
    normalization: Normalization
    rms_epsilon: float

    def tickets(self, num_slots: int, *, most_each: int, is_one: bool) -> list[Embed]:
        """The payloads, `most_each` documents at most in each; with `is_one` one, as a key brings back one request."""
        number = len(self.documents)
        most = 1 if is_one else max(min(num_slots, number // MIN_TICKET), -(-number // most_each))
        return [
            Embed(
                inputs=tuple(one.content for one in self.documents[part.start : part.stop]),
                normalization=self.normalization,
                rms_epsilon=self.rms_epsilon,
                first=part.start,
            )
            for part in split_evenly(number, least=1, most=most)
        ]


def read_embedding_batch(params: bytes) -> EmbeddingBatch:
    """Raises `InvalidField`, or `ClientException` for bytes that are no JSON."""
    asked = decode_body(params, DECODER, {})
    method = asked.normalization_method
    if isinstance(method, RmsNormMethod):
        return EmbeddingBatch(asked.input_batch, method, "rms_norm", method.RmsNorm.epsilon)
    return EmbeddingBatch(asked.input_batch, method, _METHODS[method], DEFAULT_RMS_EPSILON)


class EmbeddingLines:
    """Answers while the requests run. The first error is the last line."""

    def __init__(
        self, gateway: Gateway, batch: EmbeddingBatch, tickets: Sequence[Embed], how: Submit, clock: Clock
    ) -> None:
        # Its client knows none of their ids. The deadline is for the call, which has begun with its first ticket.
        first = replace(how, can_be_resumed=bool(how.idempotency_key))
        later = replace(first, start_timeout_ms=0)
        self._submits: list[SubmitCall] = []
        for ticket in tickets:
            label = encode_label(EmbeddingLabel(DEFAULT_POOL, first=ticket.first))
            way = replace(later if self._submits else first, label=label)
            self._submits.append(partial(gateway.submit, DEFAULT_POOL, ticket, way))
        self._firsts = [ticket.first for ticket in tickets]
        self._batch = batch
        self._clock = clock
        self._item_timeout_ms = gateway.item_timeout_ms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(self._answer(scope, out), receive, out, self._clock, EmptyLines(out))

    async def _answer(self, scope: Scope, out: Outgoing) -> None:
        envelopes = Envelopes(new_request_id(DEFAULT_POOL))
        # No id in the headers: they go out before there is one that the queue knows.
        await out.start(200, HEADERS)
        try:
            async with AsyncExitStack() as stack:

                async def write(part: Part, frame: Opened | Tokens | Finished) -> None:
                    if isinstance(frame, Finished):
                        for line in self._lines(part, envelopes):
                            await out.write(line + b"\n")
                            # A vector is some kilobytes of text to make; other streams have their turn.
                            await self._clock.sleep(0)
                        part.vectors.clear()

                await follow_parts(self._submits, scope, stack, write)
            await out.write(envelopes.embedding(b'"Done"', None) + b"\n", last=True)
        except Exception as error:
            if out.is_ended:
                raise
            line = error_line(error, envelopes, self._item_timeout_ms, generated_by=None)
            await out.write(line + b"\n", last=True)

    def _lines(self, part: Part, envelopes: Envelopes) -> Iterator[bytes]:
        first, last = (*self._firsts, len(self._batch.documents))[part.index : part.index + 2]
        documents = self._batch.documents[first:last]
        if len(documents) != len(part.vectors):
            told = f"{len(documents)} documents gave {len(part.vectors)} vectors"
            raise EngineFailed(f"{told}; the agents' logs may say why.")
        for document, vector in zip(documents, part.vectors, strict=True):
            embedding: DocumentEmbedding = {
                "embedding": unpack_vector(vector),
                "normalization_method": self._batch.method,
                # The balancer is not told how an agent pools.
                "pooling_type": "Unspecified",
                "source_document_id": document.id,
            }
            yield envelopes.embedding(_encode({"Embedding": embedding}), part.reply.route.agent_name)
