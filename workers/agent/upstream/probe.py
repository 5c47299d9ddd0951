"""What a server is and can do, found out by asking it. Nothing is generated for it.

A route that is there answers an empty object with an error about the fields that it lacks, Ollama's completions with a
404 about the model; one that is not, with 404, 405 or 501. Embeddings and ranks are tried with one letter, because
servers have their routes for models that cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from paddler.engine import ModelError
from paddler.wire.agent import Ability
from workers.agent.upstream.calls import CHAT, COMPLETIONS
from workers.agent.upstream.client import UpstreamClient
from workers.agent.upstream.dialects import DIALECTS, Dialect
from workers.agent.upstream.encoding import EMBEDDINGS, RERANK, Embeddings, Ranking
from workers.agent.upstream.server import Server
from workers.agent.upstream.settings import UpstreamSettings
from workers.agent.upstream.trouble import Broken, Busy, EndpointOff, KeyRefused, Refused, Unreachable, UpstreamTrouble

MAX_NAMED = 8
_NO_MODEL = re.compile(r"\bmodel\b.*(not found|not exist)", re.IGNORECASE)
Object = Mapping[str, Any]


async def probe(client: UpstreamClient, settings: UpstreamSettings) -> Server:
    """Raises `ModelError`, or `UpstreamTrouble` for what keeps it from answering."""
    props = await _look(client, "/props")
    listed = await _look(client, "/v1/models")
    entries = [one for one in _list(listed.get("data")) if isinstance(one.get("id"), str)]
    dialect = await _dialect(client, props, entries)
    model, entry = _choose(entries, settings)
    slots = await _slots(client) if dialect.name == "llama.cpp" else None
    paths = frozenset([path for path in (CHAT, COMPLETIONS) if await _has(client, path)])
    abilities: list[Ability] = ["generate"] if paths else []
    if await _embeds(client, model):
        abilities.append("embed")
    if await _ranks(client, model):
        abilities.append("rerank")
    if not abilities:
        raise ModelError(
            f"{settings.url} answers, but offers none of {CHAT}, {COMPLETIONS}, {EMBEDDINGS} and {RERANK}",
            kind="UpstreamEndpointOff",
        )
    total = props.get("total_slots")
    meta = _object(entry.get("meta"))
    facts = _object(props.get("default_generation_settings"))
    sizes = [facts.get("n_ctx"), entry.get("max_model_len"), meta.get("n_ctx"), settings.context_size]
    return Server(
        dialect=dialect,
        model=model,
        name=settings.model_name or name_of(model),
        num_slots=total if isinstance(total, int) and total > 0 else len(slots or ()) or None,
        context_size=next(size for size in sizes if isinstance(size, int) and size > 0),
        abilities=tuple(abilities),
        has_slots=slots is not None,
        build=str(props.get("build_info") or dialect.name)[:100],
        paths=paths,
    )


def name_of(model: str) -> str:
    """A name for URLs and logs: of a path the file's, without its ending."""
    stem = re.sub(r"\.gguf$", "", model.rstrip("/").rpartition("/")[2], flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", stem).strip("-.") or "model"


async def _look(client: UpstreamClient, path: str) -> Object:
    """What it says of itself, nothing if it says nothing."""
    try:
        return _object(await client.get(path))
    except (EndpointOff, Refused):
        return {}


async def _dialect(client: UpstreamClient, props: Object, entries: list[dict[str, Any]]) -> Dialect:
    owners = {entry.get("owned_by") for entry in entries}
    if "paddler" in owners:
        return DIALECTS["paddler"]
    if "default_generation_settings" in props or "llamacpp" in owners:
        return DIALECTS["llama.cpp"]
    if "vllm" in owners:
        return DIALECTS["vllm"]
    if "version" in await _look(client, "/api/version"):
        return DIALECTS["ollama"]
    return DIALECTS["openai"]


def _choose(entries: list[dict[str, Any]], settings: UpstreamSettings) -> tuple[str, Object]:
    """Of a server that lists none, the name that is asked for is believed."""
    names: list[str] = [entry["id"] for entry in entries]
    wanted = settings.model
    if wanted is None and len(names) == 1:
        wanted = names[0]
    if wanted is None:
        has = f"has {len(names)} models ({_named(names)})" if names else "does not say which models it has"
        raise ModelError(f"{settings.url} {has}: name the one to serve with --upstream-model", kind="SettingsInvalid")
    entry = next((one for one in entries if one["id"] == wanted), None)
    if entry is None:
        aliases = [
            one for one in entries if wanted in _list_of_text(one.get("aliases")) or one["id"] == f"{wanted}:latest"
        ]
        entry = aliases[0] if aliases else None
    if names and entry is None:
        raise ModelError(
            f"{settings.url} has no model {wanted!r}; there is: {_named(names)}. Correct --upstream-model",
            kind="SettingsInvalid",
        )
    return wanted, entry or {}


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


async def _slots(client: UpstreamClient) -> list[dict[str, Any]] | None:
    try:
        return _list(await client.get("/slots"))
    except (EndpointOff, Refused):
        return None


async def _has(client: UpstreamClient, path: str) -> bool:
    try:
        await client.post(path, {})
    except EndpointOff as trouble:
        # Some answer so for a model of no name, which is what the body has.
        return _NO_MODEL.search(trouble.message) is not None
    except (KeyRefused, Unreachable, Busy):
        raise
    except UpstreamTrouble:
        pass
    return True


async def _embeds(client: UpstreamClient, model: str) -> bool:
    answer = await _try(client, EMBEDDINGS, {"model": model, "input": "a"})
    try:
        return bool(msgspec.convert(answer, Embeddings).data)
    except msgspec.ValidationError:
        return False


async def _ranks(client: UpstreamClient, model: str) -> bool:
    answer = await _try(client, RERANK, {"model": model, "query": "a", "documents": ["a"]})
    try:
        return bool(msgspec.convert(answer, Ranking).results)
    except msgspec.ValidationError:
        return False


async def _try(client: UpstreamClient, path: str, body: Object) -> Any:
    try:
        return await client.post(path, body)
    except (KeyRefused, Unreachable, Busy):
        raise
    except (EndpointOff, Refused, Broken):
        return None


def _object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _list(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _list_of_text(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
