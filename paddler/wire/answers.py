"""Answers to questions about texts (`wire.agent.Question`): the body of a frame of kind `answered`.

MessagePack arrays `[tag, ...]`. Who only stores or passes on a frame need not know them.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Tokenized(Struct, frozen=True, array_like=True, tag="tokenized"):
    """`pieces` are the bytes of each token, if they were asked for."""

    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...] | None = None


class Detokenized(Struct, frozen=True, array_like=True, tag="detokenized"):
    text: str


class Templated(Struct, frozen=True, array_like=True, tag="templated"):
    prompt: str


class Counted(Struct, frozen=True, array_like=True, tag="counted"):
    num_tokens: int


Answer = Tokenized | Detokenized | Templated | Counted

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)


def encode_answer(answer: Answer) -> bytes:
    return _encoder.encode(answer)


def decode_answer(data: bytes) -> Answer:
    """Raises `msgspec.MsgspecError` for bytes that are no answer."""
    return _decoder.decode(data)
