"""What a balancer must know to render a chat completion that another one submitted: kept with the request."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from paddler.ids import pool_of
from paddler.jobs.gateway import Reply, RequestStatus


class ChatLabel(Struct, frozen=True, array_like=True, tag="chat"):
    """`model` as the client called it, `created` in seconds since the epoch."""

    model: str
    created: int
    include_usage: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ChatLabel)


def encode_label(label: ChatLabel) -> bytes:
    return _encoder.encode(label)


def label_of(request: Reply | RequestStatus) -> ChatLabel:
    """The label a request was submitted with; one without is called by its pool."""
    if not request.label:
        return ChatLabel(pool_of(request.request_id), 0)
    return _decoder.decode(request.label)
