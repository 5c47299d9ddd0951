"""What became of a chat template that was tried (`wire.agent.TryTemplate`): JSON, as balancers pass it on."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

Source = Literal["given", "override", "model"]


class TemplateTrial(Struct, frozen=True, kw_only=True):
    """`prompt` is null where there is none; `error` says why, and `line` is that of the template, counted from 1, where
    it is known. `is_cut`: the prompt is longer than is told. `source` is whose template it is: the one that was given,
    the desired state's, or the model's own."""

    prompt: str | None = None
    error: str | None = None
    line: int | None = None
    is_cut: bool = False
    source: Source = "given"


encode_trial = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(TemplateTrial)


def decode_trial(data: bytes) -> TemplateTrial:
    """Raises `msgspec.MsgspecError` for bytes that are none."""
    return _decoder.decode(data)
