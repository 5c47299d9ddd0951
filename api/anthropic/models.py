"""Models as Anthropic's clients list them: on OpenAI's routes, for who sends the header `anthropic-version`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from api.body import AnyRequest
from api.openai.query import read_limit, read_query
from paddler.errors import InvalidField
from paddler.jobs.fleet_view import PoolView
from paddler.jobs.gateway import PoolModel

LIMIT, MAX_LIMIT = 20, 1000
QUERY = ("limit", "after_id", "before_id")


class ModelOut(Struct, frozen=True, kw_only=True, tag="model"):
    """`created_at` is when an agent first served it. `max_input_tokens` is the context of the agents that serve it,
    null while none does; output is bounded by what is left of it. `capabilities` are not told: null."""

    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: None = None
    line: None = None
    deprecated_at: None = None
    retires_at: None = None


class ModelPage(Struct, frozen=True):
    """By pool and name, as `GET /v1/models` has them for others."""

    data: list[ModelOut]
    has_more: bool
    first_id: str | None
    last_id: str | None


def model_out(entry: PoolModel, view: PoolView) -> ModelOut:
    """A pool and an alias have the context of their first model."""
    stands_for_pool = entry.is_alias or entry.id == entry.pool
    facts = view.facts.get(min(view.facts, default="") if stands_for_pool else entry.id)
    context = facts.n_ctx if facts else None
    return ModelOut(
        id=entry.id,
        display_name=entry.id,
        created_at=datetime.fromtimestamp(entry.created, UTC).isoformat().replace("+00:00", "Z"),
        max_input_tokens=context,
        max_tokens=context,
    )


def page_of(
    request: AnyRequest, entries: Sequence[PoolModel], *, is_for_anthropic: bool
) -> tuple[list[PoolModel], bool]:
    """Those that the query asks for, and whether there are more in that direction. OpenAI's clients get all unless they
    ask for less, and what else they may have in the query is none of ours. Raises `InvalidField`."""
    if is_for_anthropic:
        query = read_query(request, QUERY)
    else:
        query = {name: str(value) for name, value in request.query_params.multi_items() if name in QUERY}
    limit = read_limit(query, LIMIT if is_for_anthropic else max(1, len(entries)), MAX_LIMIT)
    if "after_id" in query and "before_id" in query:
        raise InvalidField("Give `after_id` or `before_id`, not both.", param="before_id")
    if "before_id" in query:
        before = list(entries[: _index(entries, query["before_id"], "before_id")])
        return before[-limit:], len(before) > limit
    begin = _index(entries, query["after_id"], "after_id") + 1 if "after_id" in query else 0
    return list(entries[begin : begin + limit]), len(entries) > begin + limit


def model_page(models: list[ModelOut], has_more: bool) -> ModelPage:
    return ModelPage(models, has_more, models[0].id if models else None, models[-1].id if models else None)


def _index(entries: Sequence[PoolModel], name: str, param: str) -> int:
    for index, entry in enumerate(entries):
        if entry.id == name:
            return index
    raise InvalidField(f"`{param}` {name[:100]!r} is no model; it is `first_id` or `last_id` of a page.", param=param)
