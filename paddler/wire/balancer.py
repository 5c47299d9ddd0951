"""What balancers receive: the frames of a request's journal, and the inbox messages that carry them.

A journal is the concatenation of frames. A frame is a 4-byte big-endian length followed by that many
bytes of MessagePack: an array `[tag, ...]`. The byte offset of a frame in its journal is its sequence
number. An inbox message is `>I2 len(id)`, id, `>I4 offset`, then whole frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum

import msgspec
from msgspec import Struct

_LENGTH = struct.Struct(">I")
_ID_LENGTH = struct.Struct(">H")


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class Usage(Struct, frozen=True, array_like=True):
    """Token counts of a whole request, over all of its attempts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """An agent began or took over the request; written by `open.lua`, once an attempt.

    `vocabulary` is what the ids of the tokens that follow mean, `weights` the model that made them: names that are
    equal where these are. Older agents, and engines without a model, tell neither, and nothing is written then; one in
    front of another server tells `weights` alone."""

    agent_name: str
    attempt: int
    vocabulary: str = ""
    weights: str = ""


class _BareOpened(Struct, frozen=True, array_like=True, tag="opened"):
    agent_name: str
    attempt: int


class TextFormat(Struct, frozen=True, array_like=True):
    """What the text of a request is made of: names of `paddler.chat_formats`, empty where there is none of it.

    `calls` is how calls of tools are written, `thought` how reasoning is; `is_thinking`: the prompt has opened it."""

    calls: str = ""
    thought: str = ""
    is_thinking: bool = False


class Prefilled(Struct, frozen=True, array_like=True, tag="prefilled"):
    """The prompt is in the agent's KV cache, `cached_tokens` of it without having been computed for this request.

    Comes before the first `Tokens` of an attempt, from engines that can tell. `format` None, which is not written: all
    of the text is content."""

    prompt_tokens: int
    cached_tokens: int
    format: TextFormat | None = None


class _BarePrefilled(Struct, frozen=True, array_like=True, tag="prefilled"):
    prompt_tokens: int
    cached_tokens: int


class TokenLogprob(Struct, frozen=True, array_like=True):
    """Bytes and log probability of a sampled token, and of the likeliest ones at its place, the best first."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


UNKNOWN_TOKEN = -1
"""In `Tokens.ids`: the engine is another server, which told the text of a token and not its id. It counts as one."""


class Tokens(Struct, frozen=True, array_like=True, tag="tokens"):
    """Tokens sampled since the last frame, and the text they released.

    `text` may lag behind `ids`: incomplete UTF-8 and a possible beginning of a stop string are held back. `mu` is
    mirostat's state behind these tokens, with which another agent goes on. `logprobs` are those of `ids`, if asked for;
    what ends the output has none. What is absent is not written.
    """

    ids: tuple[int, ...]
    text: str
    mu: float | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class _BareTokens(Struct, frozen=True, array_like=True, tag="tokens"):
    """`Tokens` without what is absent: nearly all there are, and what older processes write."""

    ids: tuple[int, ...]
    text: str


class Vectors(Struct, frozen=True, array_like=True, tag="vectors"):
    """Embeddings of the next inputs, in their order: little-endian float32 each, and how many tokens each input has.

    Without any it is a sign of life of a job of whatever kind that needs long for what it says next."""

    vectors: tuple[bytes, ...]
    num_tokens: tuple[int, ...]


class Answered(Struct, frozen=True, array_like=True, tag="answered"):
    """The answer to a question about texts, as `wire.answers` encodes it; `Finished` follows at once."""

    body: bytes


class Finished(Struct, frozen=True, array_like=True, tag="finished"):
    """Terminal: the request ended as asked. `stop` is the stop string that ended it, and not written if none did."""

    reason: FinishReason
    usage: Usage = Usage()
    stop: str | None = None


class _BareFinished(Struct, frozen=True, array_like=True, tag="finished"):
    reason: FinishReason
    usage: Usage


class Failed(Struct, frozen=True, array_like=True, tag="failed"):
    """Terminal: the request ended with an error; `code` is an `errors.py` code, `status` its HTTP status."""

    code: str
    message: str
    status: int
    retryable: bool = False
    param: str | None = None


Frame = Opened | Prefilled | Tokens | Vectors | Answered | Finished | Failed

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    if isinstance(frame, Tokens) and frame.mu is None and not frame.logprobs:
        body = _encoder.encode(_BareTokens(frame.ids, frame.text))
    elif isinstance(frame, Prefilled) and frame.format is None:
        body = _encoder.encode(_BarePrefilled(frame.prompt_tokens, frame.cached_tokens))
    elif isinstance(frame, Opened) and not frame.vocabulary and not frame.weights:
        body = _encoder.encode(_BareOpened(frame.agent_name, frame.attempt))
    elif isinstance(frame, Finished) and frame.stop is None:
        body = _encoder.encode(_BareFinished(frame.reason, frame.usage))
    else:
        body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def decode_frames(data: bytes) -> Iterator[Frame]:
    """Decode whole frames. Raises `ValueError` when `data` ends within a frame or is malformed."""
    for frame, _ in decode_placed(data, 0):
        yield frame


def decode_placed(data: bytes, offset: int) -> Iterator[tuple[Frame, int]]:
    """Whole frames that begin at journal byte `offset`, each with the offset behind it; raises as `decode_frames`."""
    view, at, length = memoryview(data), 0, len(data)
    while at < length:
        begin = at + _LENGTH.size
        if begin > length:
            raise ValueError(f"journal ends within a frame's length at byte {at}")
        end = begin + int.from_bytes(view[at:begin])
        if end > length:
            raise ValueError(f"journal ends within the frame at byte {at}")
        yield _decoder.decode(view[begin:end]), offset + end
        at = end


class Delivery(Struct, frozen=True):
    """One inbox message: whole frames of one request, starting at journal byte `offset`."""

    request_id: str
    offset: int
    frames: bytes


def decode_delivery(data: bytes) -> Delivery:
    (id_size,) = _ID_LENGTH.unpack_from(data)
    at = _ID_LENGTH.size + id_size
    (offset,) = _LENGTH.unpack_from(data, at)
    return Delivery(data[_ID_LENGTH.size : at].decode(), offset, data[at + _LENGTH.size :])
