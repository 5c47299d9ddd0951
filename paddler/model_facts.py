"""What a model's file says of it, as agents publish it and `GET /v1/models` shows it: the names are llama.cpp's."""

from __future__ import annotations

import contextlib

import msgspec
from msgspec import Struct


class ModelFacts(Struct, frozen=True, kw_only=True):
    """`vocab_type` is llama.cpp's number, `n_ctx` the tokens in the context of an agent and `n_ctx_train` of the model,
    `n_embd` how many numbers a token's state has, `size` the bytes of the weights."""

    vocab_type: int
    n_vocab: int
    n_ctx: int
    n_ctx_train: int
    n_embd: int
    n_params: int
    size: int


_decoder = msgspec.json.Decoder(ModelFacts)


def encode_facts(facts: ModelFacts) -> str:
    return msgspec.json.encode(facts).decode()


def decode_facts(data: bytes) -> ModelFacts | None:
    """None for what another version has written."""
    with contextlib.suppress(msgspec.MsgspecError):
        return _decoder.decode(data)
    return None
