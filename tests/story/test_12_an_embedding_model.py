"""A model that was made for embeddings makes better ones, and an agent of it does nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from struct import unpack

import httpx
import pytest
from bert_gguf import random_bert, write_bert
from bert_numpy import classify
from gguf import PoolingType
from minilm import minilm_path
from openai import AsyncOpenAI, BadRequestError
from story_harness import CommandFleet, Queue, asking

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SENTENCES = [
    "The committee postponed its vote until next week.",
    "A loaf of bread needs flour, water, salt and yeast.",
    "The spacecraft entered an orbit around Mars.",
    "She repaired the bicycle with a new chain.",
    "Heavy rain flooded the streets of the old town.",
]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_a_library_of_two_hundred_texts_is_searched(
    fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue
) -> None:
    """MiniLM, with 22 million parameters, on four slots: a batch of 200 is spread over them and comes back in order. A
    question finds the text that answers it, though they have hardly a word in common."""
    flags = ("--model", str(minilm_path()), "--model-name", "minilm", "--slots", "4")
    await fleet.agent("minilm", *flags)
    texts = [f"{sentence} ({number})" for number in range(40) for sentence in SENTENCES]
    answer = await patient.embeddings.create(model="minilm", input=texts)
    assert [one.index for one in answer.data] == list(range(200))
    assert {len(one.embedding) for one in answer.data} == {384}
    assert answer.usage.prompt_tokens > 200 * 10

    questions = ["How do I bake?", "Was there bad weather?", "News from other planets"]
    asked = await patient.embeddings.create(model="minilm", input=questions)
    for question, expected in zip(asked.data, (1, 4, 2), strict=True):
        scores = [dot(question.embedding, one.embedding) for one in answer.data]
        assert scores.index(max(scores)) % len(SENTENCES) == expected
    assert await fleet_queue.demand() == 0

    raw = await patient.embeddings.with_raw_response.create(model="minilm", input=texts[0], encoding_format="base64")
    (item,) = raw.http_response.json()["data"]
    numbers = unpack("<384f", base64.b64decode(item["embedding"]))
    assert math.isclose(dot(numbers, answer.data[0].embedding), 1, rel_tol=1e-3)


async def test_it_is_not_asked_to_chat(fleet: CommandFleet, patient: AsyncOpenAI, fleet_queue: Queue) -> None:
    """A chat completion is refused with what to do about it, and at no moment waits for an agent that could."""
    await fleet.agent("minilm", "--model", str(minilm_path()), "--model-name", "minilm", "--slots", "1")
    before = await fleet_queue.requests()
    for _ in range(2):
        with pytest.raises(BadRequestError, match="choose another model") as refused:
            await patient.chat.completions.create(model="minilm", messages=asking("Hello!"))
        assert refused.value.param == "model"
    ended = await fleet_queue.requests() - before
    assert len(ended) <= 1, "at most the first, before the balancer had looked at the new agent"
    assert [model.id for model in (await patient.models.list()).data if model.id == "minilm"] == ["minilm"]


async def test_a_reranker_puts_documents_in_order(fleet: CommandFleet, fleet_queue: Queue, tmp_path: Path) -> None:
    """Its classifier reads the query and a document together. This one has random weights, so its order makes no sense,
    but it is the order of the very same computation in numpy."""
    words = ("the", "fox", "sea", "red", "moon", "runs", "##s", "where", "is")
    bert = random_bert(words, num_outputs=1, pooling=PoolingType.RANK)
    write_bert(bert, tmp_path / "reranker.gguf")
    flags = ("--model", str(tmp_path / "reranker.gguf"), "--model-name", "reranker", "--slots", "2")
    await fleet.agent("reranker", *flags)
    documents = [f"the {one} {other}" for one in words[1:5] for other in words[1:5]]
    scores = [
        float(classify(bert, [bert.id_of(token) for token in f"[CLS] where is fox [SEP] {one} [SEP]".split()])[0])
        for one in documents
    ]
    body = {"model": "reranker", "query": "where is fox", "documents": documents, "top_n": 3, "return_documents": True}
    async with httpx.AsyncClient(base_url=fleet.balancer_url, trust_env=False, timeout=60) as http:
        told = await http.post("/v1/rerank", json=body)
    assert told.status_code == 200, told.text
    results = told.json()["results"]
    best = sorted(range(len(documents)), key=lambda index: -scores[index])[:3]
    assert [one["index"] for one in results] == best
    assert [one["document"]["text"] for one in results] == [documents[index] for index in best]
    assert all(math.isclose(one["relevance_score"], scores[one["index"]], abs_tol=0.01) for one in results)
    assert await fleet_queue.demand() == 0
