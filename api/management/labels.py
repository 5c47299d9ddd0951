"""What labels of requests tell an operator, whatever protocol wrote them."""

from __future__ import annotations

import msgspec

from api.openai.label import Label

_labels = msgspec.msgpack.Decoder(Label)


def model_called(label: bytes) -> str:
    """The model as the client called it; empty where its protocol, or a newer version's label, does not say."""
    try:
        return getattr(_labels.decode(label), "model", "") if label else ""
    except msgspec.MsgspecError:
        return ""
