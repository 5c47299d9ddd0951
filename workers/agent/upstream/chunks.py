"""The chunks of a stream, as far as they are read; what they have beside that is of no interest."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from paddler.wire.balancer import TokenLogprob
from workers.agent.upstream.client import error_in
from workers.agent.upstream.trouble import Broken


class Function(Struct):
    name: str | None = None
    arguments: str | None = None


class Call(Struct):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(Struct):
    """`reasoning` is what some servers call `reasoning_content`."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Struct):
    """Of a chat (`content`), or as OpenAI's completions have them: three lists."""

    content: list[Logprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(Struct):
    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Logprobs | None = None


class Details(Struct):
    cached_tokens: int | None = None


class ChunkUsage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None


class Timings(Struct):
    """llama.cpp's: tokens of the prompt that were computed and that were there, and those generated."""

    prompt_n: int = 0
    predicted_n: int = 0
    cache_n: int = 0


class PromptProgress(Struct):
    total: int = 0
    cache: int = 0


class Chunk(Struct):
    choices: list[Choice] | None = None
    usage: ChunkUsage | None = None
    timings: Timings | None = None
    prompt_progress: PromptProgress | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Chunk)


def read_chunk(data: bytes) -> Chunk:
    """Raises `Broken` for what is no chunk, and for an error in its place."""
    try:
        chunk = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise Broken(f"the server's stream has an event that is no chunk of an answer: {error}") from None
    if chunk.error is not None:
        told, _, _ = error_in({"error": chunk.error})
        raise Broken(f"the server ended its stream with an error: {told}", brief="an error within its stream")
    return chunk


def logprobs_of(found: Logprobs, num_top: int) -> tuple[TokenLogprob, ...]:
    """With so many alternatives for each token at most."""
    if found.content is not None:
        return tuple(
            TokenLogprob(
                _piece(one),
                one.logprob,
                tuple((_piece(top), top.logprob) for top in (one.top_logprobs or ())[:num_top]),
            )
            for one in found.content
        )
    tops = found.top_logprobs or [None] * len(found.tokens or ())
    return tuple(
        TokenLogprob(token.encode(), value or 0.0, _best(top or {}, num_top))
        for token, value, top in zip(found.tokens or (), found.token_logprobs or (), tops, strict=False)
    )


def _best(found: dict[str, float], num_top: int) -> tuple[tuple[bytes, float], ...]:
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return tuple((token.encode(), value) for token, value in ordered[:num_top])


def _piece(one: TopLogprob) -> bytes:
    if one.bytes is not None:
        try:
            return bytes(one.bytes)
        except ValueError:
            raise Broken("the server's stream has bytes of a token that are none") from None
    return one.token.encode("utf-8", "surrogatepass")
