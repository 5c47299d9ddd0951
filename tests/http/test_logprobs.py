"""Log probabilities as OpenAI's clients get them. Pure, but for those with the official client on a fleet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fleet_harness import Fleet
from http_harness import HttpBalancer
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletionChunk

from api.openai.completion import ChatStream
from api.openai.label import ChatLabel
from api.openai.logprobs import LogprobStream
from paddler.detokenizer import Detokenizer
from paddler.store.client import Store
from paddler.wire.balancer import FinishReason, TokenLogprob, Tokens, Usage

pytestmark = pytest.mark.anyio


def entries(*pieces: bytes) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(piece, -1.0) for piece in pieces)


def released(pieces: list[bytes], stop: tuple[str, ...] = ()) -> list[list[bytes]]:
    """The tokens that are given out with every piece, and at the end, as the engine's text comes."""
    stream, detokenizer = LogprobStream(), Detokenizer(stop)
    out = [stream.push(detokenizer.push(piece), entries(piece)) for piece in pieces]
    out.append(stream.push(detokenizer.flush(), ()))
    return [[bytes(token["bytes"]) for token in tokens] for tokens in out]


async def test_a_token_comes_with_its_text() -> None:
    assert released([b"a", b"bc"]) == [[b"a"], [b"bc"], []]


async def test_tokens_of_a_possible_stop_wait_with_their_text() -> None:
    assert released([b"a<", b"b", b"c"], stop=("<br>",)) == [[], [], [b"a<", b"b", b"c"], []]
    assert released([b"a", b"<", b"b"], stop=("<br>",)) == [[b"a"], [], [], [b"<", b"b"]]


async def test_tokens_of_a_stop_are_not_given_out() -> None:
    assert released([b"a", b"<", b"br", b">"], stop=("<br>",)) == [[b"a"], [], [], [], []]


async def test_half_characters_keep_their_order() -> None:
    snow = "☃".encode()
    out = released([b"a", snow[:1], snow[1:], b"b", b"\xff"])
    assert [piece for pieces in out for piece in pieces] == [b"a", snow[:1], snow[1:], b"b", b"\xff"]


async def test_a_stream_that_goes_on_knows_what_its_client_has() -> None:
    """The first token was sampled before the place the client goes on from, and its text comes behind it."""
    earlier = [Tokens((1, 2), "a", None, entries(b"a", b"<")), Tokens((3,), "", None, entries(b"b"))]
    label = ChatLabel("m", 1, has_logprobs=True)
    stream = ChatStream("default.abc", label, is_begun=True, earlier=earlier)
    event = stream.tokens("<bx", entries(b"x"))
    chunk: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
    assert [token["token"] for token in chunk["choices"][0]["logprobs"]["content"]] == ["<", "b", "x"]


async def test_the_official_models_take_the_chunks() -> None:
    stream = ChatStream("default.abc", ChatLabel("m", 1, has_logprobs=True))
    events = stream.tokens("a", (TokenLogprob(b"a", -0.5, ((b"a", -0.5), (b"\xff", -1e9))),))
    events += stream.tokens("b") + stream.finished(FinishReason.STOP, Usage(1, 2))
    chunks = [
        ChatCompletionChunk.model_validate(json.loads(event.removeprefix(b"data: ")), strict=True)
        for event in events.split(b"\n\n")
        if event and b"[DONE]" not in event
    ]
    (told,) = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices and chunk.choices[0].logprobs]
    assert told.content is not None
    (token,) = told.content
    assert (token.token, token.logprob, token.bytes) == ("a", -0.5, [97])
    assert [(top.token, top.logprob, top.bytes) for top in token.top_logprobs] == [
        ("a", -0.5, [97]),
        ("\ufffd", -9999.0, [255]),
    ]


@pytest.fixture
async def client(balancer: HttpBalancer, store: Store) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(store.url, store.prefix, stack)
        await fleet.agent(slots=4, step_s=0.002)
        yield await stack.enter_async_context(balancer.openai())
        await fleet.close()


SAY = "[[say=snow ☃ and a pair 😀]]"


async def test_whole_and_streamed_say_the_same(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "default", "messages": [{"role": "user", "content": SAY}], "logprobs": True, "top_logprobs": 2,
        "stop": "air",
    }  # fmt: skip
    whole = (await client.chat.completions.create(**asked)).choices[0]
    assert whole.logprobs is not None
    assert whole.logprobs.content is not None
    text = b"".join(bytes(token.bytes or []) for token in whole.logprobs.content).decode()
    assert text == whole.message.content == "snow ☃ and a p"
    assert all(len(token.top_logprobs) == 2 for token in whole.logprobs.content)
    streamed = [
        token
        async for chunk in await client.chat.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content or []
    ]
    assert streamed == whole.logprobs.content


async def test_none_unless_asked_for(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": SAY}]}
    assert (await client.chat.completions.create(**asked)).choices[0].logprobs is None
    with pytest.raises(BadRequestError, match="needs `logprobs`") as caught:
        await client.chat.completions.create(**asked, top_logprobs=1)
    assert caught.value.param == "top_logprobs"
