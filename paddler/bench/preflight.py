"""What must be known of a target before anything is measured, and whether it can be talked to at all."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct

from paddler.bench.client import CHAT, Client
from paddler.bench.events import read_chunk
from paddler.bench.samples import Failure
from paddler.bench.texts import Texts

PATIENCE_S = 60.0
FEW, MANY = 32, 160


class CannotBench(Exception):
    """Why there is nothing to measure, in one line without its full stop."""


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model] = []


async def find_model(client: Client) -> str:
    """The one that was named, else the first that the target lists. Raises `CannotBench`."""
    if client.target.model is not None:
        return client.target.model
    try:
        models = msgspec.json.decode(await _read(client, "GET", "/v1/models"), type=_Models).data
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CannotBench(
            f"{client.target.url}/v1/models lists no models as OpenAI's API does: name the URL of such a server"
        ) from None
    if not models:
        raise CannotBench(
            f"{client.target.url} has no model yet; start an agent, or name one that will come with --model"
        )
    return models[0].id


async def measure_words(client: Client, model: str, seed: int) -> float | None:
    """Tokens that a word of ours has there, by the prompt tokens of two short requests that no later one begins like.
    None where `usage` does not tell. Raises `CannotBench`."""
    texts = Texts(seed, 1.0)
    counts: list[int] = []
    for num_words in (FEW, MANY):
        messages = [{"role": "user", "content": texts.text(f"measure/{num_words}", num_words)}]
        body = client.body(model, messages, 1, is_streamed=False)
        try:
            usage = read_chunk(await _read(client, "POST", CHAT, body)).usage
        except Failure:
            raise CannotBench(
                f"{client.target.url}{CHAT} gave no chat completion: name the URL of an OpenAI-compatible server"
            ) from None
        if usage is None or not usage.prompt_tokens:
            return None
        counts.append(usage.prompt_tokens)
    slope = (counts[1] - counts[0]) / (MANY - FEW)
    return slope if slope > 0 else None


async def _read(client: Client, method: str, path: str, body: bytes | None = None) -> bytes:
    """Raises `CannotBench`."""
    try:
        async with asyncio.timeout(PATIENCE_S), client.call(method, path, body) as answer:
            return await answer.read()
    except (Failure, TimeoutError) as error:
        raise _cannot(client, error) from None


def _cannot(client: Client, error: Failure | TimeoutError) -> CannotBench:
    where = client.target.url
    if isinstance(error, TimeoutError):
        return CannotBench(f"{where} does not answer within {PATIENCE_S:g} s")
    if error.kind in ("status 401", "status 403"):
        return CannotBench(
            f"{where} answered {error.kind[7:]}: {error.message.rstrip('.')}: --api-key-file with a key of it"
        )
    if error.kind.startswith("status"):
        return CannotBench(f"{where} answered {error.kind[7:]}: {error.message.rstrip('.')}")
    return CannotBench(f"{where} cannot be talked to: {error.message.rstrip('.')}")
