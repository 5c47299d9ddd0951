"""The pool's sampling is that of every request that says nothing of it, whatever route it comes by."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from batch_harness import batch_worker, jsonl
from http_harness import HandAgent, HttpBalancer, NewAgent, chat
from msgspec.structs import replace
from native_harness import params, raw_socket
from openai import AsyncOpenAI

from paddler.desired.schema import BalancerDesiredState, InferenceParameters
from paddler.desired.store import DesiredStates
from paddler.store.client import Store
from paddler.wire.agent import ApplyTemplate, Embed, Sampling
from paddler.wire.balancer import Vectors

pytestmark = pytest.mark.anyio

PARAMETERS = InferenceParameters(temperature=0.25, top_p=0.5, penalty_presence=0.0, dry_multiplier=0.75, mirostat_tau=3)
POOL = Sampling(temperature=0.25, top_p=0.5, penalty_presence=0.0, dry_multiplier=0.75, mirostat_tau=3)
MESSAGES = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": chat()}

ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", chat()),
    "completions": ("/v1/completions", {"model": "default", "prompt": "hi"}),
    "responses": ("/v1/responses", {"model": "default", "input": "hi"}),
    "messages": ("/v1/messages", MESSAGES),
    "conversation": ("/api/v1/continue_from_conversation_history", params("hi")),
    "raw prompt": ("/api/v1/continue_from_raw_prompt", {"raw_prompt": "hi", "max_tokens": 9}),
}
ASKED: dict[str, dict[str, Any]] = {
    # Also what is the default without a desired state.
    "chat": {"temperature": 0.8, "presence_penalty": 0.8, "dry_multiplier": 0, "seed": 5},
    "completions": {"temperature": 0.8, "presence_penalty": 0.8, "dry_multiplier": 0, "seed": 5},
    "responses": {"temperature": 0.8, "top_p": 0.8},
    "messages": {"temperature": 0.8, "top_p": 0.8, "top_k": 80},
}


async def set_state(store: Store, parameters: InferenceParameters = PARAMETERS) -> None:
    state = BalancerDesiredState(inference_parameters=parameters)
    await DesiredStates(store).write("default", state, expected=None, author="a test")


async def queued(balancer: HttpBalancer, agent: HandAgent, path: str, body: dict[str, Any]) -> tuple[Sampling, Any]:
    """What an agent is told of sampling, and the answer."""
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post(path, json=body))
        request = await agent.take()
        await request.say("hello")
        await request.finish()
        answer = await asking
    assert answer.status_code == 200, answer.text
    return request.asked.sampling, answer


@pytest.mark.parametrize("name", ROUTES)
async def test_what_a_request_does_not_say_is_the_pools(
    name: str, balancer: HttpBalancer, agent: HandAgent, store: Store
) -> None:
    await set_state(store)
    sampling, _ = await queued(balancer, agent, *ROUTES[name])
    assert replace(sampling, seed=0) == POOL


@pytest.mark.parametrize("name", ASKED)
async def test_what_a_request_says_wins(name: str, balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    await set_state(store)
    path, body = ROUTES[name]
    sampling, _ = await queued(balancer, agent, path, body | ASKED[name])
    asked = ASKED[name] | {"penalty_presence": ASKED[name].get("presence_penalty", 0.0)}
    asked.pop("presence_penalty", None)
    assert replace(sampling, seed=0) == replace(POOL, **asked | {"seed": 0})
    if "seed" in asked:
        assert sampling.seed == 5


@pytest.mark.parametrize("name", ROUTES)
async def test_without_a_state_it_is_as_ever(name: str, balancer: HttpBalancer, agent: HandAgent) -> None:
    sampling, _ = await queued(balancer, agent, *ROUTES[name])
    assert replace(sampling, seed=0) == Sampling()


async def test_over_the_inference_socket(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    await set_state(store)
    async with raw_socket(balancer.url()) as socket:
        await socket.ask("a", "hi")
        request = await agent.take()
        await request.finish()
    assert replace(request.asked.sampling, seed=0) == POOL


async def test_every_choice(balancer: HttpBalancer, new_agent: NewAgent, store: Store) -> None:
    await set_state(store)
    agent = await new_agent(slots=2)
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=chat(n=2, top_k=3)))
        requests = [await agent.take() for _ in range(2)]
        for request in requests:
            await request.finish()
        await asking
    assert [replace(one.asked.sampling, seed=0) for one in requests] == [replace(POOL, top_k=3)] * 2
    assert len({one.asked.sampling.seed for one in requests}) == 2


async def test_lines_of_a_batch(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    await set_state(store)
    lines = [LINE, LINE | {"custom_id": "b", "body": chat(temperature=0.8)}]
    async with (
        AsyncOpenAI(base_url=f"{balancer.url()}/v1", api_key="none", timeout=20) as client,
        batch_worker(store.url, store.prefix),
    ):
        file = await client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        found: list[float] = []
        for _ in lines:
            request = await agent.take()
            found.append(request.asked.sampling.temperature)
            assert request.asked.sampling.top_p == 0.5
            await request.finish()
    assert sorted(found) == [0.25, 0.8]


async def test_a_response_tells_what_it_was_made_with(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    await set_state(store)
    _, answer = await queued(balancer, agent, "/v1/responses", ROUTES["responses"][1] | {"top_p": 0.75})
    assert (answer.json()["temperature"], answer.json()["top_p"]) == (0.25, 0.75)


async def test_a_question_about_a_request(balancer: HttpBalancer, new_agent: NewAgent, store: Store) -> None:
    """It is sent as that would be, with nothing beside that only a balancer knows."""
    agent = await new_agent(abilities="generate tokenize")
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post("/apply-template", json=chat()))
        request = await agent.take()
        await request.finish()
        await asking
    assert isinstance(request.payload, ApplyTemplate)
    raw = json.dumps(str(request.payload.request))
    assert "given" not in raw


async def test_a_change_counts_for_what_comes_after_it(balancer: HttpBalancer, agent: HandAgent, store: Store) -> None:
    await set_state(store)
    assert (await queued(balancer, agent, *ROUTES["chat"]))[0].temperature == 0.25
    await set_state(store, replace(PARAMETERS, temperature=0.5))
    async with asyncio.timeout(20):
        while (await queued(balancer, agent, *ROUTES["chat"]))[0].temperature != 0.5:
            pass


async def test_of_many_that_come_first_none_goes_without(
    balancer: HttpBalancer, new_agent: NewAgent, store: Store
) -> None:
    """All come before this balancer has read the state."""
    await set_state(store)
    agent = await new_agent(slots=8)
    async with balancer.http() as http:
        asking = [asyncio.create_task(http.post("/v1/chat/completions", json=chat())) for _ in range(8)]
        for _ in asking:
            request = await agent.take()
            assert request.asked.sampling.temperature == 0.25
            await request.finish()
        await asyncio.gather(*asking)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (
            "/api/v1/generate_embedding_batch",
            {"input_batch": [{"id": "a", "content": "b"}], "normalization_method": "L2"},
            "Embedding generation is not enabled in the inference parameters",
        ),
        ("/v1/embeddings", {"model": "default", "input": ["a", "b"]}, '"code":"embeddings_off"'),
    ],
)
async def test_embeddings_that_are_switched_off(
    balancer: HttpBalancer, agent: HandAgent, store: Store, path: str, body: dict[str, Any], told: str
) -> None:
    """On Paddler 4's route as that says it. What has been asked waits for nobody."""
    await set_state(store, InferenceParameters(enable_embeddings=False))
    async with balancer.http() as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 501
    assert told in answer.text
    assert await balancer.is_idle()


async def test_ranking_goes_on_without_embeddings(balancer: HttpBalancer, new_agent: NewAgent, store: Store) -> None:
    await set_state(store, InferenceParameters(enable_embeddings=False))
    agent = await new_agent(slots=1, abilities="rerank")
    async with balancer.http() as http:
        body = {"model": "default", "query": "a", "documents": ["b"]}
        asking = asyncio.create_task(http.post("/v1/rerank", json=body))
        request = await agent.take()
        await request.emit(Vectors((b"\x00\x00\x80\x3f",), (2,)))
        await request.finish()
        assert (await asking).json()["results"] == [{"index": 0, "relevance_score": 1.0}]


async def test_how_many_documents_a_request_has(balancer: HttpBalancer, new_agent: NewAgent, store: Store) -> None:
    await set_state(store, InferenceParameters(embedding_batch_size=3))
    agent = await new_agent(slots=1)
    batch = {
        "input_batch": [{"id": str(number), "content": "b"} for number in range(8)],
        "normalization_method": "L2",
    }
    async with balancer.http() as http:
        asking = asyncio.create_task(http.post("/api/v1/generate_embedding_batch", json=batch))
        sizes: list[int] = []
        for _ in range(3):
            request = await agent.take()
            assert isinstance(request.payload, Embed)
            number = len(request.payload.inputs)
            await request.emit(Vectors((b"\x00\x00\x80\x3f",) * number, (2,) * number))
            await request.finish()
            sizes.append(number)
        await asking
    assert sorted(sizes) == [2, 3, 3]
