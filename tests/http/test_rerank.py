"""`POST /v1/rerank`: the real queue, an agent moved by hand."""

from __future__ import annotations

import asyncio
from struct import pack
from typing import Any

import pytest
from embedding_calls import refused
from http_harness import HandAgent, HandRequest, HttpBalancer, NewAgent

from api.openai.rerank import RERANK_PATHS
from paddler.errors import ContextExceeded
from paddler.jobs import fleet_view
from paddler.wire.agent import Rerank
from paddler.wire.balancer import FinishReason, Usage, Vectors

pytestmark = pytest.mark.anyio

RERANK = "/v1/rerank"


@pytest.fixture(autouse=True)
def fresh_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balancers see a new agent's slots at once."""
    monkeypatch.setattr(fleet_view, "REFRESH_S", 0)


def rank(documents: list[str], **fields: Any) -> dict[str, Any]:
    return {"model": "default", "query": "q", "documents": documents, **fields}


def payload_of(request: HandRequest) -> Rerank:
    assert isinstance(request.payload, Rerank)
    return request.payload


async def answer(request: HandRequest) -> None:
    """A document's score is its number."""
    numbers = [float(document.split()[-1]) for document in payload_of(request).documents]
    await request.emit(Vectors(tuple(pack("<f", number) for number in numbers), (2,) * len(numbers)))
    await request.finish(FinishReason.STOP, Usage(prompt_tokens=2 * len(numbers)))


@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_the_best_comes_first(balancer: HttpBalancer, agent: HandAgent, path: str) -> None:
    async with balancer.http() as http:
        body = rank(["text 1", "text 3", "text 2"], top_n=2, return_documents=True)
        asking = asyncio.create_task(http.post(path, json=body))
        request = await agent.take()
        await answer(request)
        told = await asking
        assert told.status_code == 200, told.text
        assert told.json()["results"] == [
            {"index": 1, "relevance_score": 3.0, "document": {"text": "text 3"}},
            {"index": 2, "relevance_score": 2.0, "document": {"text": "text 2"}},
        ]
        assert told.json()["id"] == told.headers["x-request-id"] == request.request_id
        assert told.json()["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
        shown = (await http.get(f"/v1/requests/{request.request_id}")).json()
        assert [one["index"] for one in shown["response"]["results"]] == [1, 2, 0]
        stream = await http.get(f"/v1/requests/{request.request_id}/stream")
        assert (stream.status_code, stream.json()["error"]["param"]) == (400, "id")


async def test_many_documents_are_spread_and_ranked_together(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=3, abilities="rerank")
    documents = [f"text {number * 7 % 48}" for number in range(48)]
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(RERANK, json=rank(documents)))
        requests = [await agent.take() for _ in range(3)]
        assert sorted(payload_of(request).first for request in requests) == [0, 16, 32]
        for request in reversed(requests):
            await answer(request)
        results = (await asking).json()["results"]
    assert [one["relevance_score"] for one in results] == [float(47 - place) for place in range(48)]
    assert all(documents[one["index"]] == f"text {int(one['relevance_score'])}" for one in results)


async def test_one_that_fails_is_the_answer(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    agent = await new_agent(slots=2)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(RERANK, json=rank(["text 1"] * 32)))
        bad, other = [await agent.take() for _ in range(2)]
        await bad.fail(ContextExceeded("documents[3] is too long", param="documents[3]"))
        assert (await refused(asking, 400))["param"] == "documents[3]"
        await other.cancelled()
    assert await balancer.is_idle()


async def test_a_pool_that_ranks_nothing_refuses(balancer: HttpBalancer, new_agent: NewAgent) -> None:
    await new_agent(abilities="generate embed")
    async with balancer.http() as http:
        told = await http.post(RERANK, json=rank(["text 1"]))
    assert (told.status_code, told.json()["error"]["param"]) == (400, "model")
    assert "cannot rerank" in told.json()["error"]["message"]


async def test_a_repeat_with_its_key_is_the_same_request(balancer: HttpBalancer, agent: HandAgent) -> None:
    headers = {"Idempotency-Key": "k"}
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(RERANK, json=rank(["text 1", "text 2"]), headers=headers))
        await answer(await agent.take())
        first, again = await asking, await http.post(RERANK, json=rank(["text 1", "text 2"]), headers=headers)
        assert first.content == again.content


async def test_the_openai_service_has_it_too(balancer: HttpBalancer, agent: HandAgent) -> None:
    async with balancer.http("openai") as http:
        asking = asyncio.create_task(http.post(RERANK, json=rank(["text 1"])))
        await answer(await agent.take())
        assert (await asking).status_code == 200
