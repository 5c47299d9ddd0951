"""The requests of the queue that a batch of embeddings consists of, as others see them."""

from __future__ import annotations

import asyncio
import struct

import pytest
from http_harness import HttpBalancer, NewAgent

from paddler.wire.agent import Embed
from paddler.wire.balancer import Vectors

pytestmark = pytest.mark.anyio


async def test_a_part_of_a_batch_of_embeddings_is_known_by_its_id(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2, abilities="embed")
    batch = [{"id": f"doc-{number}", "content": "a"} for number in range(32)]
    body = {"input_batch": batch, "normalization_method": "L2"}
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post("/api/v1/generate_embedding_batch", json=body))
        requests = [await agent.take() for _ in range(2)]
        firsts: list[int] = []
        for request in requests:
            assert isinstance(request.payload, Embed)
            firsts.append(request.payload.first)
            await request.emit(Vectors((struct.pack("<2f", 1.0, 0.0),) * 16, (1,) * 16))
            await request.finish()
        answer = await asking
        # The headers go out before anything is in the queue.
        assert "x-paddler-request-id" not in answer.headers
        assert answer.headers["x-request-id"].startswith("req-")
        for first, request in zip(firsts, requests, strict=True):
            shown = (await http.get(f"/v1/requests/{request.request_id}")).json()["response"]
            assert (shown["object"], shown["model"]) == ("list", "default")
            assert [one["index"] for one in shown["data"]] == list(range(first, first + 16))
    assert sorted(firsts) == [0, 16]
