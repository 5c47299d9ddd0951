"""A model as `GET /v1/models` shows it: OpenAI's object, and what llama.cpp's server tells of it beside."""

from __future__ import annotations

from api.openai.objects import ModelObject
from paddler.jobs.fleet_view import PoolView
from paddler.jobs.gateway import PoolModel


def model_object(entry: PoolModel, view: PoolView) -> ModelObject:
    """`abilities` and `meta` are there while an agent is that tells them; those of a pool or an alias are its first
    model's."""
    model: ModelObject = {"id": entry.id, "object": "model", "created": entry.created, "owned_by": "paddler"}
    if view.abilities is not None:
        model["abilities"] = sorted(view.abilities)
    stands_for_pool = entry.is_alias or entry.id == entry.pool
    name = min(view.facts, default="") if stands_for_pool else entry.id
    if (facts := view.facts.get(name)) is not None:
        model["meta"] = facts
    return model
