"""`POST /v1/embeddings`: from a body to payloads for the queue, and from vectors to the answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from api.openai.batch import MIN_TICKET, usage_of
from api.openai.label import EmbeddingLabel
from api.openai.objects import EmbeddingObject, PromptUsage
from api.validation import decode_body
from paddler.errors import EngineFailed, InvalidField
from paddler.jobs.heard import Heard
from paddler.routing.batches import split_evenly
from paddler.vectors import NUMBER_SIZE, unpack_vector
from paddler.wire.agent import DEFAULT_NORMALIZATION, DEFAULT_RMS_EPSILON, Embed, Normalization
from paddler.wire.balancer import Usage

MAX_INPUTS = 2048
"""As many as OpenAI takes."""


class EmbeddingRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/embeddings`; `null` means absent."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[object], Meta(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    user: str | None = None

    # Not OpenAI's.
    normalization: Normalization | None = None
    rms_epsilon: Annotated[float, Meta(ge=0, le=1)] | None = None


class EmbeddingCall(Struct, frozen=True):
    """A checked request."""

    model: str
    texts: tuple[str, ...]
    is_base64: bool
    dimensions: int | None
    is_single: bool = False
    """A text, not a list."""
    normalization: Normalization = DEFAULT_NORMALIZATION
    rms_epsilon: float = DEFAULT_RMS_EPSILON

    def tickets(self, num_slots: int, *, is_one: bool) -> list[Embed]:
        """The payloads, each for one slot, as many as there are slots or as are worth it; with `is_one` one."""
        parts = split_evenly(len(self.texts), least=MIN_TICKET, most=1 if is_one else num_slots)
        return [
            Embed(
                inputs=self.texts[part.start : part.stop],
                dimensions=self.dimensions,
                first=part.start,
                is_single=self.is_single,
                normalization=self.normalization,
                rms_epsilon=self.rms_epsilon,
            )
            for part in parts
        ]

    def label(self, ticket: Embed) -> EmbeddingLabel:
        return EmbeddingLabel(self.model, self.is_base64, ticket.first)

    def gather(self, parts: Sequence[Heard]) -> Iterator[bytes]:
        """The chunks of the answer of finished requests; see `render`."""
        return self.render([vector for part in parts for vector in part.vectors], usage_of(parts))

    def render(self, vectors: Sequence[bytes], usage: Usage) -> Iterator[bytes]:
        """The chunks of the answer. Raises `EngineFailed` when there is not one vector for each input, or not all
        are of one size: agents with different models."""
        if len(vectors) != len(self.texts):
            raise EngineFailed(f"{len(self.texts)} inputs gave {len(vectors)} vectors; the agents' logs may say why.")
        if len(sizes := sorted({len(vector) // NUMBER_SIZE for vector in vectors})) > 1:
            told = " and ".join(map(str, sizes))
            raise EngineFailed(f"the inputs gave vectors of {told} dimensions: agents of this pool have other models.")
        return embedding_chunks(vectors, usage, EmbeddingLabel(self.model, self.is_base64))


DECODER = msgspec.json.Decoder(EmbeddingRequest)


def read_embedding_call(body: bytes) -> EmbeddingCall:
    """Decode, check and translate a body. Raises `InvalidField`, or `ClientException` for bytes that are no JSON."""
    request = decode_body(body, DECODER, {})
    is_single = isinstance(request.input, str)
    if isinstance(request.input, str):
        texts = (_text("input", request.input),)
    else:
        texts = tuple(_text(f"input[{index}]", item) for index, item in enumerate(request.input))
    normalization = request.normalization or DEFAULT_NORMALIZATION
    if request.rms_epsilon is not None and normalization != "rms_norm":
        raise InvalidField(
            f"`rms_epsilon` is part of `normalization` `rms_norm`, not of `{normalization}`: leave it out.",
            param="rms_epsilon",
        )
    return EmbeddingCall(
        model=request.model,
        texts=texts,
        is_base64=request.encoding_format == "base64",
        dimensions=request.dimensions,
        is_single=is_single,
        normalization=normalization,
        rms_epsilon=DEFAULT_RMS_EPSILON if request.rms_epsilon is None else request.rms_epsilon,
    )


def _text(param: str, item: object) -> str:
    if isinstance(item, int | list):
        raise InvalidField(
            f"`{param}`: tokens are not supported, only text: a token means something else to each model. LangChain's "
            "OpenAIEmbeddings sends text with `check_embedding_ctx_length=False`.",
            param=param,
        )
    if not isinstance(item, str):
        raise InvalidField(f"`{param}` must be a string.", param=param)
    if not item:
        raise InvalidField(f"`{param}` must not be empty.", param=param)
    return item


def embedding_chunks(vectors: Sequence[bytes], usage: Usage, label: EmbeddingLabel) -> Iterator[bytes]:
    """OpenAI's answer for the inputs from the label's `first` on, in JSON, a vector or so at a time: the numbers of all
    at once would be eight times as large as the vectors."""
    yield b'{"object":"list","data":['
    for number, vector in enumerate(vectors):
        item: EmbeddingObject = {
            "object": "embedding",
            "index": label.first + number,
            "embedding": _number_form(vector, label),
        }
        yield (b"," if number else b"") + msgspec.json.encode(item)
    total: PromptUsage = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    yield b"]," + msgspec.json.encode({"model": label.model, "usage": total})[1:]


def _number_form(vector: bytes, label: EmbeddingLabel) -> str | tuple[float, ...]:
    return base64.b64encode(vector).decode() if label.is_base64 else unpack_vector(vector)
