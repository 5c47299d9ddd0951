"""What a balancer must know to render a message that another one submitted: kept with the request."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class MessageLabel(Struct, frozen=True, array_like=True, tag="message"):
    """`model` as the client called it. `hides_thinking`: it wants thoughts to be empty. `images`: what the agent and
    what the client calls each image, for errors (see `words.py`)."""

    model: str
    max_tokens: int
    hides_thinking: bool = False
    images: tuple[tuple[str, str], ...] = ()


encode_label = msgspec.msgpack.Encoder().encode
