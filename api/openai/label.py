"""What a balancer must know to render a request that another one submitted: kept with the request."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from api.anthropic.label import MessageLabel
from api.native.label import NativeLabel
from paddler.ids import pool_of
from paddler.jobs.gateway import Reply, RequestStatus


class ChatLabel(Struct, frozen=True, array_like=True, tag="chat"):
    """`model` as the client called it, `created` in seconds since the epoch; whether it wants log probabilities."""

    model: str
    created: int
    include_usage: bool = False
    has_logprobs: bool = False


class CompletionLabel(Struct, frozen=True, array_like=True, tag="completion"):
    """A completion of a raw prompt; `echo` is what its text begins with."""

    model: str
    created: int
    include_usage: bool = False
    has_logprobs: bool = False
    echo: str = ""


class EmbeddingLabel(Struct, frozen=True, array_like=True, tag="embeddings"):
    """`first` is the place of the request's first input among those of the client."""

    model: str
    is_base64: bool = False
    first: int = 0


class RerankLabel(Struct, frozen=True, array_like=True, tag="rerank"):
    """`first` is the place of the request's first document among those of the client."""

    model: str
    first: int = 0


class QuestionLabel(Struct, frozen=True, array_like=True, tag="question"):
    """A question about texts: its answer says what it is."""


class ResponseLabel(Struct, frozen=True, array_like=True, tag="response"):
    """A response: `echo` is the JSON object of what it says of how it was asked for."""

    model: str
    created: int
    echo: bytes = b""
    has_logprobs: bool = False
    is_background: bool = False


Label = (
    ChatLabel
    | CompletionLabel
    | EmbeddingLabel
    | RerankLabel
    | QuestionLabel
    | MessageLabel
    | ResponseLabel
    | NativeLabel
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Label)


def encode_label(label: Label) -> bytes:
    return _encoder.encode(label)


def label_of(request: Reply | RequestStatus) -> Label:
    """The label a request was submitted with; one without is called by its pool."""
    if not request.label:
        return ChatLabel(pool_of(request.request_id), 0)
    return _decoder.decode(request.label)
