"""Large JSON bodies: in pieces, between which others have their turn."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import httpx
import pytest
from embedding_calls import EMBEDDINGS, embed
from http_harness import HandAgent, HttpBalancer

from api.connection import Outgoing
from api.openai.embeddings import embedding_chunks
from api.openai.label import EmbeddingLabel
from api.pieces import PIECE, JsonAnswer
from paddler.clock import SystemClock
from paddler.wire.balancer import Usage, Vectors

pytestmark = pytest.mark.anyio

VECTOR = bytes.fromhex("cdcccc3d") * 1024


async def send_all(chunks: Any) -> list[tuple[int, Any]]:
    """What is sent, each with the number of turns others had before it."""
    sent: list[tuple[int, Any]] = []
    turns = 0

    async def send(message: Any) -> None:
        sent.append((turns, message))

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    scope: Any = {}
    await JsonAnswer(chunks, SystemClock())(scope, receive, send)
    running.cancel()
    return sent


async def test_others_have_their_turn_between_the_pieces() -> None:
    num_made = 0

    def counted() -> Any:
        nonlocal num_made
        for chunk in embedding_chunks([VECTOR] * 64, Usage(), EmbeddingLabel("m")):
            num_made += 1
            yield chunk

    (_, start), *body = await send_all(counted())
    assert b"content-length" not in dict(start["headers"])
    assert len(body) > 10
    assert max(len(message["body"]) for _, message in body) < 2 * PIECE
    turns = [turn for turn, _ in body]
    assert all(later > earlier for earlier, later in pairwise(turns))
    assert [message["more_body"] for _, message in body] == [True] * (len(body) - 1) + [False]
    assert num_made == 66


async def test_a_small_one_has_a_length() -> None:
    for chunks in ([b"{}"], [b"{", b"", b"}"]):
        (_, start), (_, body) = await send_all(chunks)
        assert dict(start["headers"])[b"content-length"] == b"2"
        assert body["body"] == b"{}"


async def test_a_large_answer_arrives_whole(balancer: HttpBalancer, agent: HandAgent) -> None:
    """By its call and by its id; from every single write is known how large it was."""
    sizes: list[int] = []
    write = Outgoing.write

    async def measured(self: Outgoing, data: bytes, *, last: bool = False) -> None:
        sizes.append(len(data))
        await write(self, data, last=last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outgoing, "write", measured)
        async with balancer.http() as http:
            asking = asyncio.create_task(http.post(EMBEDDINGS, json=embed(["x"] * 100)))
            request = await agent.take()
            await request.emit(Vectors((VECTOR,) * 100, (1,) * 100))
            await request.finish()
            told: httpx.Response = await asking
            shown = await http.get(f"/v1/requests/{request.request_id}")
    assert len(told.content) > 1_000_000
    assert [len(one["embedding"]) for one in told.json()["data"]] == [1024] * 100
    assert shown.json()["response"] == told.json()
    assert max(sizes) < 2 * PIECE
    assert len(sizes) > 20
