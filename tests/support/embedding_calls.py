"""Calls of `POST /v1/embeddings`, and the agent's part of their answers."""

from __future__ import annotations

import asyncio
from struct import pack
from typing import Any

import httpx
from http_harness import HandRequest

from paddler.wire.agent import Embed
from paddler.wire.balancer import FinishReason, Usage, Vectors

EMBEDDINGS = "/v1/embeddings"
BATCH = [f"text {number}" for number in range(48)]


def embed(texts: str | list[str] = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "default", "input": texts, **fields}


def payload_of(request: HandRequest) -> Embed:
    assert isinstance(request.payload, Embed)
    return request.payload


async def answer(request: HandRequest, *, reason: FinishReason = FinishReason.STOP) -> None:
    """Each text's vector is its number."""
    inputs = payload_of(request).inputs
    numbers = [float(text.split()[-1]) if text[-1].isdigit() else 0.5 for text in inputs]
    half = len(numbers) // 2
    for part in (numbers[:half], numbers[half:]):
        await request.emit(Vectors(tuple(pack("<f", number) for number in part), (2,) * len(part)))
    await request.finish(reason, Usage(prompt_tokens=2 * len(inputs)))


async def refused(asking: asyncio.Task[httpx.Response], status: int) -> dict[str, Any]:
    told = await asking
    assert told.status_code == status, told.text
    return told.json()["error"]
